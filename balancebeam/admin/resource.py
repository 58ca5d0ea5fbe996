"""The resource of the admin listener: authorizes and routes requests, writes responses."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.admin.api import REGISTRATION_PATH, AdminApi, ApiRequest, match_route
from balancebeam.admin.auth import Authorizer, RequestInfo
from balancebeam.admin.parsing import AdminError
from balancebeam.admin.responses import (
    ApiResponse,
    Response,
    SlicedResponse,
    StreamResponse,
    error,
)
from balancebeam.admin.slices import Slices
from balancebeam.protocols.http1.local_reply import is_json, jsend_fail, wrong_method

_ABSOLUTE_FORM = re.compile(r"https?://([^/]*)(/.*)?", re.IGNORECASE)


class AdminResource(Resource):
    """
    The root resource of the admin listener; a leaf, because `AdminApi` has the routes.

    Attributes:
        authorizer: Authorizes every request; replaced by a reload.
    """

    isLeaf = True
    log = Logger()

    def __init__(self, api: AdminApi, authorizer: Authorizer, slices: Slices) -> None:
        """
        Args:
            api: The handlers.
            authorizer: Authorizes every request.
            slices: Makes long bodies.
        """
        super().__init__()
        self._slices = slices
        self.authorizer = authorizer
        self._api = api

    def render(self, request: Request) -> int:
        """Start the handler; the response is written when it has finished."""
        response = Deferred.fromCoroutine(self._dispatch(request))
        disconnected: list[Failure] = []
        request.notifyFinish().addErrback(disconnected.append)

        def write(response: Response) -> None:
            if disconnected:
                return
            if isinstance(response, StreamResponse):
                _start_stream(request, response)
            elif isinstance(response, SlicedResponse):
                self._make_response(request, response)
            else:
                _write_response(request, response)

        response.addErrback(self._internal_error).addCallback(write)
        response.addErrback(lambda failure: self.log.failure("response not written", failure))
        return NOT_DONE_YET

    def _make_response(self, request: Request, response: SlicedResponse) -> None:
        """Write `response` when its body is complete; a client that disconnects ends it."""
        body = self._slices.make(response.pieces)
        request.notifyFinish().addErrback(lambda _: body.cancel())

        def make(parts: list[bytes]) -> ApiResponse:
            return ApiResponse(200, b"".join(parts), response.content_type, response.headers)

        def fail(failure: Failure) -> ApiResponse | None:
            return None if failure.check(CancelledError) else self._internal_error(failure)

        def write(response: ApiResponse | None) -> None:
            if response is not None:
                _write_response(request, response)

        written = body.addCallbacks(make, fail).addCallback(write)
        written.addErrback(lambda failure: self.log.failure("response not written", failure))

    def is_denied(self, request: Request) -> bool:
        """Whether `request`, which has been answered, would be rejected now."""
        info = _request_info(request, _target(request)[1])
        return self.authorizer.authorize(info) is not None

    async def _dispatch(self, request: Request) -> Response:
        path, authority = _target(request)
        denied = self.authorizer.authorize(_request_info(request, authority))
        if denied is not None:
            return error(denied.status, denied.text, denied.headers)
        route = match_route(path)
        if route is None:
            return error(404, "not found")
        handlers, params = route
        method = request.method.decode("ascii", "replace")
        if method not in handlers and not (method == "HEAD" and "GET" in handlers):
            return _method_not_allowed(path, method, handlers)
        content: Any = request.content
        body = content.read() if content is not None else b""
        content_types = list(request.requestHeaders.getRawHeaders(b"content-type") or [])
        if (body or content_types) and not is_json(content_types):
            return error(415, "unsupported media type: expected application/json")
        try:
            accept = ",".join(request.requestHeaders.getRawHeaders("accept") or ())
            return await handlers["GET" if method == "HEAD" else method](
                self._api,
                ApiRequest(params, body, accept, request.uri.partition(b"?")[2]),
            )
        except AdminError as rejection:
            return error(rejection.status, rejection.text)

    def _internal_error(self, failure: Failure) -> ApiResponse:
        self.log.failure("admin request failed", failure)
        return error(500, "internal error: see the log")


def _method_not_allowed(path: str, method: str, handlers: Collection[str]) -> ApiResponse:
    """Return the response to a method that is not among `handlers`."""
    allowed = ", ".join(sorted({*handlers, *(("HEAD",) if "GET" in handlers else ())}))
    allow = ((b"Allow", allowed.encode()),)
    if path == REGISTRATION_PATH:
        return ApiResponse(405, jsend_fail(wrong_method(method)) + b"\n", headers=allow)
    # The method can have any length: the list of methods comes first.
    return error(405, f"method not allowed: expected {allowed}, not {method}"[:200], allow)


def _target(request: Request) -> tuple[str, str | None]:
    """Return the path of the request target, and its authority if it is in absolute-form."""
    path = request.path.decode("ascii", "replace")
    absolute = _ABSOLUTE_FORM.fullmatch(path)
    return (path, None) if absolute is None else (absolute[2] or "/", absolute[1])


def _request_info(request: Request, authority: str | None) -> RequestInfo:
    """
    Return the properties of `request` that authorization depends on.

    RFC 9112, 3.2.2: a server that receives a target in absolute-form "MUST ignore
    the received Host header field (if any)"; `authority` replaces it.
    """
    headers = request.requestHeaders

    def values(name: str) -> list[str]:
        # Latin-1 decodes every byte; field values need not be UTF-8.
        return [value.decode("latin-1") for value in headers.getRawHeaders(name.encode()) or []]

    preflight = bool(values("access-control-request-method"))
    return RequestInfo(
        values("host") if authority is None else [authority],
        values("origin"),
        values("sec-fetch-site"),
        values("authorization"),
        preflight,
        script=bool(values("x-requested-with")),
    )


def _set_headers(request: Request, content_type: bytes) -> None:
    """Set the headers of all responses."""
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-content-type-options", b"nosniff")


def _start_stream(request: Request, response: StreamResponse) -> None:
    _set_headers(request, response.content_type)
    if request.method == b"HEAD":
        request.finish()
    else:
        response.start(request)


def _write_response(request: Request, response: ApiResponse) -> None:
    request.setResponseCode(response.status)
    _set_headers(request, response.content_type)
    request.setHeader(b"content-length", b"%d" % len(response.body))
    for name, value in response.headers:
        request.responseHeaders.addRawHeader(name, value)
    if request.method != b"HEAD":
        request.write(response.body)
    request.finish()
