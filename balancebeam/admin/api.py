"""
The route table of the admin API, and its handlers.

Every handler takes an `ApiRequest` and returns a `Response`, or raises `AdminError`.
Authentication and methods are checked before, in `AdminResource`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Callable
from urllib.parse import unquote

from attrs import frozen

from balancebeam.admin.events import CONTENT_TYPE as EVENT_STREAM
from balancebeam.admin.events import MAX_VIEWERS, EventStreams
from balancebeam.admin.explain import PARAMETERS, explain
from balancebeam.admin.interfaces import Balancer, Pool
from balancebeam.admin.openapi import openapi_json
from balancebeam.admin.operations import AdminOperations
from balancebeam.admin.page_files import INDEX, PAGE_HEADERS, load_page
from balancebeam.admin.parsing import AdminError, parse_object, parse_query
from balancebeam.admin.recent_requests import PARAMETERS as REQUESTS_PARAMETERS
from balancebeam.admin.recent_requests import list_requests
from balancebeam.admin.registration import register
from balancebeam.admin.responses import (
    ApiResponse,
    Response,
    SlicedResponse,
    StreamResponse,
    error,
    sliced_success,
    success,
)
from balancebeam.admin.views import server_view, server_views
from balancebeam.config.dump import dump
from balancebeam.core.errors import ConfigError
from balancebeam.observability.metrics import metrics_texts
from balancebeam.observability.prometheus import (
    CONTENT_TYPE,
    OPENMETRICS_CONTENT_TYPE,
    accepts_openmetrics,
)
from balancebeam.upstream.server import Server

# The path of the reference registration API.
REGISTRATION_PATH = "/register"


@frozen
class ApiRequest:
    """
    An authorized request.

    Attributes:
        path_params: The values of the named segments of the path.
        body: The body.
        accept: The value of Accept; empty without one.
        query: The query component of the target, encoded; see `parse_query`.
    """

    path_params: Mapping[str, str]
    body: bytes = b""
    accept: str = ""
    query: bytes = b""


Handler = Callable[["AdminApi", ApiRequest], Awaitable[Response]]


class AdminApi:
    """
    The handlers of the admin API.

    Attributes:
        balancer: The balancer to inspect and reload.
        operations: Changes its servers.
        events: The streams of `GET /events`.
    """

    def __init__(
        self, balancer: Balancer, operations: AdminOperations, events: EventStreams
    ) -> None:
        self.balancer = balancer
        self.operations = operations
        self.events = events
        self._page = load_page()

    async def register(self, request: ApiRequest) -> ApiResponse:
        """`POST /register`: add a server to the default pool."""
        if not self.balancer.pools:
            raise AdminError(404, "no pool is configured")
        status, body = await register(self.operations, self.balancer.default_pool, request.body)
        return ApiResponse(status, body + b"\n")

    async def upstreams(self, request: ApiRequest) -> SlicedResponse:
        """`GET /upstreams`: list the servers of all pools."""
        return sliced_success(server_views(self.balancer.pools.values()))

    async def add_upstream(self, request: ApiRequest) -> ApiResponse:
        """`POST /upstreams/POOL`: add a server to a pool."""
        pool = self._pool(request)
        status, body = await register(self.operations, pool, request.body, unknown_field_status=400)
        return ApiResponse(status, body + b"\n")

    async def pool_upstreams(self, request: ApiRequest) -> SlicedResponse:
        """`GET /upstreams/POOL`: list the servers of a pool."""
        return sliced_success(server_views([self._pool(request)]))

    async def upstream(self, request: ApiRequest) -> ApiResponse:
        """`GET /upstreams/POOL/ADDRESS`: show a server."""
        return success(server_view(*self._pool_and_server(request)))

    async def change_upstream(self, request: ApiRequest) -> ApiResponse:
        """`PATCH /upstreams/POOL/ADDRESS`: set the weight or the admin state of a server."""
        pool, server = self._pool_and_server(request)
        await self.operations.change(pool, server, parse_object(request.body))
        return success(server_view(pool, server))

    async def remove_upstream(self, request: ApiRequest) -> ApiResponse:
        """`DELETE /upstreams/POOL/ADDRESS`: drain and remove a server."""
        pool, server = self._pool_and_server(request)
        await self.operations.remove(pool, server)
        return success(server_view(pool, server))

    async def explain(self, request: ApiRequest) -> ApiResponse:
        """`GET /explain`: what would happen to a request; it is not sent."""
        return success(explain(self.balancer, parse_query(request.query, PARAMETERS)))

    async def requests(self, request: ApiRequest) -> SlicedResponse:
        """`GET /requests`: recent requests."""
        query = parse_query(request.query, REQUESTS_PARAMETERS)
        return sliced_success(list_requests(self.balancer.recent_requests, query))

    async def metrics(self, request: ApiRequest) -> SlicedResponse:
        """`GET /metrics`: all metrics in the text format of Prometheus, or in OpenMetrics."""
        openmetrics = accepts_openmetrics(request.accept)
        texts = metrics_texts(self.balancer, openmetrics=openmetrics)
        content_type = OPENMETRICS_CONTENT_TYPE if openmetrics else CONTENT_TYPE
        return SlicedResponse(texts, content_type.encode(), ((b"Vary", b"Accept"),))

    async def healthz(self, request: ApiRequest) -> ApiResponse:
        """`GET /healthz`: liveness of the process."""
        return success("alive")

    async def readyz(self, request: ApiRequest) -> ApiResponse:
        """`GET /readyz`: whether traffic can be served, and if not, why."""
        reason = self.balancer.not_ready_reason()
        return error(503, reason) if reason else success("ready")

    async def config(self, request: ApiRequest) -> ApiResponse:
        """`GET /config`: the effective configuration as TOML, secrets masked."""
        text = dump(self.balancer.settings, mask=True)
        return ApiResponse(200, text.encode(), b"application/toml; charset=utf-8")

    async def reload(self, request: ApiRequest) -> ApiResponse:
        """`POST /reload`: read the configuration again, as SIGHUP does."""
        if request.body.strip() and parse_object(request.body):
            raise AdminError(400, "unexpected body: a reload takes no parameters")
        try:
            return success({"changed": self.balancer.reload()})
        except ConfigError as rejection:
            # RFC 9110, 15.5.21: "it was unable to process the contained instructions".
            return error(422, "\n".join(rejection.problems))

    async def event_stream(self, request: ApiRequest) -> Response:
        """`GET /events`: snapshots and changes as server-sent events."""
        if self.events.full:
            return error(503, f"too many viewers: at most {MAX_VIEWERS} are allowed")
        return StreamResponse(EVENT_STREAM, self.events.add)

    async def page(self, request: ApiRequest) -> ApiResponse:
        """`GET /` and `GET /page/NAME`: the files of the admin page."""
        file = self._page.get(request.path_params.get("file", INDEX))
        if file is None:
            return error(404, "not found")
        return ApiResponse(200, file.content, file.content_type, PAGE_HEADERS)

    async def openapi(self, request: ApiRequest) -> ApiResponse:
        """`GET /openapi.json`: the OpenAPI document of this API."""
        return ApiResponse(200, openapi_json())

    def _pool(self, request: ApiRequest) -> Pool:
        return self.operations.pool(request.path_params["pool"])

    def _pool_and_server(self, request: ApiRequest) -> tuple[Pool, Server]:
        pool = self._pool(request)
        return pool, self.operations.server(pool, request.path_params["address"])


# Handlers by path pattern and method. A name in braces matches one segment;
# `{address}` also matches the rest of the path.
ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/": {"GET": AdminApi.page},
    "/page/{file}": {"GET": AdminApi.page},
    "/events": {"GET": AdminApi.event_stream},
    REGISTRATION_PATH: {"POST": AdminApi.register},
    "/upstreams": {"GET": AdminApi.upstreams},
    "/upstreams/{pool}": {"GET": AdminApi.pool_upstreams, "POST": AdminApi.add_upstream},
    "/upstreams/{pool}/{address}": {
        "GET": AdminApi.upstream,
        "PATCH": AdminApi.change_upstream,
        "DELETE": AdminApi.remove_upstream,
    },
    "/explain": {"GET": AdminApi.explain},
    "/requests": {"GET": AdminApi.requests},
    "/metrics": {"GET": AdminApi.metrics},
    "/healthz": {"GET": AdminApi.healthz},
    "/readyz": {"GET": AdminApi.readyz},
    "/config": {"GET": AdminApi.config},
    "/reload": {"POST": AdminApi.reload},
    "/openapi.json": {"GET": AdminApi.openapi},
}


def match_route(path: str) -> tuple[Mapping[str, Handler], Mapping[str, str]] | None:
    """Return the handlers by method and the path parameters of `path`; `None` if unknown."""
    for pattern, methods in ROUTES.items():
        params = _match_path(pattern, path)
        if params is not None:
            return methods, params
    return None


def _match_path(pattern: str, path: str) -> Mapping[str, str] | None:
    expected, segments = pattern.split("/"), path.split("/")
    if expected[-1] == "{address}" and len(segments) > len(expected):
        # The path of a Unix socket has slashes, which not every client encodes.
        last = len(expected) - 1
        segments = [*segments[:last], "/".join(segments[last:])]
    if len(expected) != len(segments):
        return None
    params = {}
    for name, segment in zip(expected, segments):
        if name.startswith("{") and segment:
            params[name.strip("{}")] = unquote(segment)
        elif name != segment:
            return None
    return params
