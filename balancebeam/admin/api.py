"""What the operator can ask for: the table of requests, and what answers each."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Callable
from urllib.parse import unquote

from attrs import frozen

from balancebeam.admin.dashboard import DASHBOARD_HTML
from balancebeam.admin.openapi import openapi_json
from balancebeam.admin.operations import AdminError, AdminOperations, Balancer, parse_object
from balancebeam.admin.registration import register
from balancebeam.admin.responses import ApiResponse, error, success
from balancebeam.config.dump import dump
from balancebeam.core.errors import ConfigError
from balancebeam.observability.metrics import metrics_text
from balancebeam.observability.prometheus import CONTENT_TYPE


@frozen
class ApiRequest:
    """A request: `path_params` are the parts of its path that have a name in the table."""

    path_params: Mapping[str, str]
    body: bytes = b""


Handler = Callable[["AdminApi", ApiRequest], Awaitable[ApiResponse]]


class AdminApi:
    """Answers requests by looking at and changing `balancer`."""

    def __init__(self, balancer: Balancer, operations: AdminOperations) -> None:
        self.balancer: Any = balancer
        self.operations = operations

    async def register(self, request: ApiRequest) -> ApiResponse:
        status, body = await register(self.operations, self.balancer.default_pool, request.body)
        return ApiResponse(status, body + b"\n")

    async def upstreams(self, request: ApiRequest) -> ApiResponse:
        return success(self.operations.servers())

    async def add_upstream(self, request: ApiRequest) -> ApiResponse:
        pool = self.operations.pool(request.path_params["pool"])
        status, body = await register(self.operations, pool, request.body, unknown_field_status=400)
        return ApiResponse(status, body + b"\n")

    async def pool_upstreams(self, request: ApiRequest) -> ApiResponse:
        pool = self.operations.pool(request.path_params["pool"])
        return success(
            [one for one in self.operations.servers() if one["pool"] == pool.settings.name]
        )

    async def upstream(self, request: ApiRequest) -> ApiResponse:
        pool = self.operations.pool(request.path_params["pool"])
        server = self.operations.server(pool, request.path_params["address"])
        return success(self.operations.describe(pool, server))

    async def change_upstream(self, request: ApiRequest) -> ApiResponse:
        pool = self.operations.pool(request.path_params["pool"])
        server = self.operations.server(pool, request.path_params["address"])
        await self.operations.change(pool, server, parse_object(request.body))
        return success(self.operations.describe(pool, server))

    async def remove_upstream(self, request: ApiRequest) -> ApiResponse:
        pool = self.operations.pool(request.path_params["pool"])
        server = self.operations.server(pool, request.path_params["address"])
        await self.operations.remove(pool, server)
        return success(self.operations.describe(pool, server))

    async def metrics(self, request: ApiRequest) -> ApiResponse:
        return ApiResponse(200, metrics_text(self.balancer).encode(), CONTENT_TYPE.encode())

    async def healthz(self, request: ApiRequest) -> ApiResponse:
        return success("alive")

    async def readyz(self, request: ApiRequest) -> ApiResponse:
        why = self.balancer.not_ready_reason()
        return error(503, why) if why else success("ready")

    async def config(self, request: ApiRequest) -> ApiResponse:
        text = dump(self.balancer.settings, mask=True)
        return ApiResponse(200, text.encode(), b"application/toml; charset=utf-8")

    async def reload(self, request: ApiRequest) -> ApiResponse:
        if request.body.strip() and parse_object(request.body):
            raise AdminError(400, "there is nothing to say about a reload; leave the body empty")
        try:
            return success({"changed": self.balancer.reload()})
        except ConfigError as refused:
            # RFC 9110, 15.5.21: the instructions it contains cannot be carried out.
            return error(422, "\n".join(refused.problems))

    async def dashboard(self, request: ApiRequest) -> ApiResponse:
        return ApiResponse(
            200,
            DASHBOARD_HTML.encode(),
            b"text/html; charset=utf-8",
            (
                (
                    b"Content-Security-Policy",
                    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                    b"connect-src 'self'; base-uri 'none'; form-action 'none'; "
                    b"frame-ancestors 'none'",
                ),
                (b"X-Frame-Options", b"DENY"),
            ),
        )

    async def openapi(self, request: ApiRequest) -> ApiResponse:
        return raw_json(openapi_json())


def raw_json(document: bytes) -> ApiResponse:
    """A JSON document as it is."""
    return ApiResponse(200, document)


# What there is, by path and method. A name in braces stands for a segment; the
# last one of a path for all the rest.
ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/": {"GET": AdminApi.dashboard},
    "/register": {"POST": AdminApi.register},
    "/upstreams": {"GET": AdminApi.upstreams},
    "/upstreams/{pool}": {"GET": AdminApi.pool_upstreams, "POST": AdminApi.add_upstream},
    "/upstreams/{pool}/{address}": {
        "GET": AdminApi.upstream,
        "PATCH": AdminApi.change_upstream,
        "DELETE": AdminApi.remove_upstream,
    },
    "/metrics": {"GET": AdminApi.metrics},
    "/healthz": {"GET": AdminApi.healthz},
    "/readyz": {"GET": AdminApi.readyz},
    "/config": {"GET": AdminApi.config},
    "/reload": {"POST": AdminApi.reload},
    "/openapi.json": {"GET": AdminApi.openapi},
}


def match_route(path: str) -> tuple[Mapping[str, Handler], Mapping[str, str]] | None:
    """What there is at `path`, and the parts that have a name."""
    for pattern, methods in ROUTES.items():
        names = _match_path(pattern, path)
        if names is not None:
            return methods, names
    return None


def _match_path(pattern: str, path: str) -> Mapping[str, str] | None:
    wanted, given = pattern.split("/"), path.split("/")
    if wanted[-1] == "{address}" and len(given) > len(wanted):
        # That of a Unix socket has slashes, which not everybody encodes.
        given = [*given[: len(wanted) - 1], "/".join(given[len(wanted) - 1 :])]
    if len(wanted) != len(given):
        return None
    names = {}
    for one, other in zip(wanted, given):
        if one.startswith("{") and other:
            names[one.strip("{}")] = unquote(other)
        elif one != other:
            return None
    return names
