"""
`GET /explain`: the route, the limits and the servers of a request that is not sent.

Nothing changes: no limit counts the request, no turn of an algorithm is used, no counter
is incremented.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from balancebeam.admin.interfaces import Balancer, Frontend
from balancebeam.admin.parsing import AdminError
from balancebeam.core.errors import RequestError
from balancebeam.core.ip import normalize_ip
from balancebeam.protocols.http1.grammar import ABSOLUTE_TARGET, REQUEST_LINE, TOKEN, is_host
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.explanation import ExplainedRequest, Explanation
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.ratelimit.explanation import LimitExplanation
from balancebeam.ratelimit.limit import Limit
from balancebeam.upstream.server import Server

# The query parameters; only the target is required.
PARAMETERS = ("target", "method", "host", "client", "frontend")

DEFAULT_METHOD = "GET"
DEFAULT_CLIENT = "127.0.0.1"


@frozen
class _Question:
    """
    The query of a request to explain, parsed but not yet of any frontend.

    Attributes:
        client: The client's IP address in its normal form.
        method: The method.
        host: The value of Host.
        target: The target in the form in which it is forwarded.
        secure: Whether the target has the scheme https.
    """

    client: str
    method: bytes
    host: bytes
    target: bytes
    secure: bool


def explain(balancer: Balancer, query: Mapping[str, str]) -> dict[str, Any]:
    """
    Explain what would happen to a request without a body, and without any field but Host.

    Args:
        balancer: The balancer.
        query: The query parameters, see `PARAMETERS`.

    Returns:
        The data of the response.

    Raises:
        AdminError: A parameter is missing or invalid.
    """
    question = _parse_question(query)
    frontend = _find_frontend(balancer, query.get("frontend"), question.secure)
    route, request = _route(frontend, question)
    limits, status = route.admission.explain(request)
    scopes = _scopes(balancer)
    outcome: Explanation = route.handler.explain(request)
    return {
        "frontend": frontend.settings.name,
        "route": route.name,
        "pool": route.dispatcher.pool_name or None,
        "limits": [_limit_view(scopes, limit) for limit in limits],
        "candidates": [_candidate_view(server, reason) for server, reason in outcome.candidates],
        "answer": outcome.status if status is None else status,
    }


def _parse_question(query: Mapping[str, str]) -> _Question:
    if "target" not in query:
        raise AdminError(
            400,
            "missing target: expected a path such as /v1 or a URL such as http://example.org/v1",
        )
    method = query.get("method", DEFAULT_METHOD).encode()
    if TOKEN.fullmatch(method) is None:
        raise _invalid("method", query["method"], "a method such as GET")
    target = query["target"].encode()
    # The pattern excludes spaces and line ends, so that the target stays one target.
    if REQUEST_LINE.fullmatch(b"GET %b HTTP/1.1\r\n" % target) is None:
        raise _invalid("target", query["target"], "a path such as /v1, or a URL, percent-encoded")
    absolute = ABSOLUTE_TARGET.fullmatch(target)
    default_host = b"" if absolute is None else absolute[2]
    host = query["host"].encode() if "host" in query else default_host
    if not is_host(host):
        raise _invalid("host", host.decode(), "a host such as example.org, or host:port")
    client = normalize_ip(query.get("client", DEFAULT_CLIENT))
    if client is None:
        raise _invalid("client", query["client"], "an IP address")
    try:
        # A parser of its own, because parsers cache what clients send. It accepts https too.
        head = RequestHeadParser(secure=True).parse(
            b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, host)
        )
    except RequestError as error:
        raise AdminError(
            400, f"invalid request: {error.reason}: the proxy responds with {error.status}"
        ) from None
    secure = absolute is not None and absolute[1].lower() == b"https"
    return _Question(client, method, head.host or b"", head.target, secure)


def _find_frontend(balancer: Balancer, name: str | None, secure: bool) -> Frontend:
    """Return the frontend called `name`, or the first one; for https the first one with TLS."""
    frontends = balancer.frontends
    if not frontends:
        raise AdminError(400, "no frontend is configured")
    if name is not None:
        if name not in frontends:
            raise AdminError(
                400,
                f"unknown frontend {reprlib.repr(name)}: expected one of {', '.join(frontends)}",
            )
        return frontends[name]
    ordered = [frontends[settings.name] for settings in balancer.settings.frontends]
    with_tls = (frontend for frontend in ordered if frontend.settings.tls is not None)
    return next(with_tls, ordered[0]) if secure else ordered[0]


def _route(frontend: Frontend, question: _Question) -> tuple[RouteTarget, ExplainedRequest]:
    """Find the route as the frontend does: by host and path, or in TCP mode by server name."""
    table = frontend.route_table
    if frontend.settings.mode == "tcp":
        route = table.find(question.host, b"/") if question.host else table.default
        return route, ExplainedRequest(question.client)
    request = ExplainedRequest(question.client, question.method, question.host, question.target)
    return table.find(question.host, question.target), request


def _scopes(balancer: Balancer) -> Mapping[Limit, str]:
    """The scope of each limit."""
    return {limit: scope for scope, limits in balancer.limiter.scopes.items() for limit in limits}


def _limit_view(scopes: Mapping[Limit, str], explained: LimitExplanation) -> dict[str, Any]:
    return {
        "scope": scopes.get(explained.limit, ""),
        "name": explained.limit.settings.title,
        "key": explained.key,
        "remaining": explained.remaining,
        "refuses": explained.refuses,
        "retry_after": explained.retry_after,
    }


def _candidate_view(server: Server, reason: str) -> dict[str, Any]:
    return {
        "server": server.name,
        "reason": reason,
        "state": "draining" if server.removed else server.status,
        "weight": server.weight,
        "in_flight": server.in_flight,
    }


def _invalid(name: str, value: str, expected: str) -> AdminError:
    return AdminError(400, f"invalid {name} {reprlib.repr(value)}: expected {expected}")
