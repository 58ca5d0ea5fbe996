"""What the operator can ask for: the table of requests, and what answers each."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Callable
from urllib.parse import unquote

from attrs import frozen

from balancebeam.admin.dashboard import PAGE
from balancebeam.admin.openapi import describe
from balancebeam.admin.operations import Balancer, Mistake, Operator, read_object
from balancebeam.admin.registration import register
from balancebeam.admin.responses import Answer, error, success
from balancebeam.config.dump import dump
from balancebeam.core.errors import StartupError
from balancebeam.observability.metrics import metrics_text
from balancebeam.observability.prometheus import CONTENT_TYPE


@frozen
class Wanted:
    """A request: `names` are the parts of its path that have a name in the table."""

    names: Mapping[str, str]
    body: bytes = b""


Handler = Callable[["Api", Wanted], Awaitable[Answer]]


class Api:
    """Answers requests by looking at and changing `balancer`."""

    def __init__(self, balancer: Balancer, operator: Operator) -> None:
        self.balancer: Any = balancer
        self.operator = operator

    async def register(self, wanted: Wanted) -> Answer:
        status, body = await register(self.operator, self.balancer.first_pool, wanted.body)
        return Answer(status, body + b"\n")

    async def upstreams(self, wanted: Wanted) -> Answer:
        return success(self.operator.servers())

    async def add_upstream(self, wanted: Wanted) -> Answer:
        pool = self.operator.pool(wanted.names["pool"])
        status, body = await register(self.operator, pool, wanted.body, unknown=400)
        return Answer(status, body + b"\n")

    async def pool_upstreams(self, wanted: Wanted) -> Answer:
        pool = self.operator.pool(wanted.names["pool"])
        return success(
            [one for one in self.operator.servers() if one["pool"] == pool.settings.name]
        )

    async def upstream(self, wanted: Wanted) -> Answer:
        pool = self.operator.pool(wanted.names["pool"])
        server = self.operator.server(pool, wanted.names["address"])
        return success(self.operator.describe(pool, server))

    async def change_upstream(self, wanted: Wanted) -> Answer:
        pool = self.operator.pool(wanted.names["pool"])
        server = self.operator.server(pool, wanted.names["address"])
        await self.operator.change(pool, server, read_object(wanted.body))
        return success(self.operator.describe(pool, server))

    async def remove_upstream(self, wanted: Wanted) -> Answer:
        pool = self.operator.pool(wanted.names["pool"])
        server = self.operator.server(pool, wanted.names["address"])
        await self.operator.remove(pool, server)
        return success(self.operator.describe(pool, server))

    async def metrics(self, wanted: Wanted) -> Answer:
        return Answer(200, metrics_text(self.balancer).encode(), CONTENT_TYPE.encode())

    async def healthz(self, wanted: Wanted) -> Answer:
        return success("alive")

    async def readyz(self, wanted: Wanted) -> Answer:
        why = self.balancer.unready()
        return error(503, why) if why else success("ready")

    async def config(self, wanted: Wanted) -> Answer:
        text = dump(self.balancer.settings, mask=True)
        return Answer(200, text.encode(), b"application/toml; charset=utf-8")

    async def reload(self, wanted: Wanted) -> Answer:
        if wanted.body.strip() and read_object(wanted.body):
            raise Mistake(400, "there is nothing to say about a reload; leave the body empty")
        try:
            return success({"changed": self.balancer.reload()})
        except StartupError as refused:
            # RFC 9110, 15.5.21: the instructions it contains cannot be carried out.
            return error(422, "\n".join(refused.problems))

    async def page(self, wanted: Wanted) -> Answer:
        return Answer(
            200,
            PAGE.encode(),
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

    async def description(self, wanted: Wanted) -> Answer:
        return success_raw(describe())


def success_raw(document: bytes) -> Answer:
    """A JSON document as it is."""
    return Answer(200, document)


# What there is, by path and method. A name in braces stands for a segment; the
# last one of a path for all the rest.
TABLE: Mapping[str, Mapping[str, Handler]] = {
    "/": {"GET": Api.page},
    "/register": {"POST": Api.register},
    "/upstreams": {"GET": Api.upstreams},
    "/upstreams/{pool}": {"GET": Api.pool_upstreams, "POST": Api.add_upstream},
    "/upstreams/{pool}/{address}": {
        "GET": Api.upstream,
        "PATCH": Api.change_upstream,
        "DELETE": Api.remove_upstream,
    },
    "/metrics": {"GET": Api.metrics},
    "/healthz": {"GET": Api.healthz},
    "/readyz": {"GET": Api.readyz},
    "/config": {"GET": Api.config},
    "/reload": {"POST": Api.reload},
    "/openapi.json": {"GET": Api.description},
}


def find(path: str) -> tuple[Mapping[str, Handler], Mapping[str, str]] | None:
    """What there is at `path`, and the parts that have a name."""
    for pattern, methods in TABLE.items():
        names = _match(pattern, path)
        if names is not None:
            return methods, names
    return None


def _match(pattern: str, path: str) -> Mapping[str, str] | None:
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
