"""The admin listener's one resource: guards, finds what is asked for, and answers."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.admin.api import AdminApi, ApiRequest, match_route
from balancebeam.admin.auth import Authorizer, RequestInfo
from balancebeam.admin.operations import AdminError
from balancebeam.admin.responses import JSON, ApiResponse, error

_ABSOLUTE = re.compile(r"https?://([^/]*)(/.*)?", re.IGNORECASE)


class AdminResource(Resource):
    """Answers all requests of the admin listener."""

    isLeaf = True
    log = Logger()

    def __init__(self, api: AdminApi, authorizer: Authorizer) -> None:
        super().__init__()
        self.authorizer = authorizer
        self._api = api

    def render(self, request: Request) -> int:
        """Answer now or later."""
        answering = Deferred.fromCoroutine(self._dispatch(request))
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def give(response: ApiResponse) -> None:
            if not gone:
                _write_response(request, response)

        answering.addErrback(self._internal_error).addCallback(give)
        answering.addErrback(lambda failure: self.log.failure("while answering", failure))
        return NOT_DONE_YET

    async def _dispatch(self, request: Request) -> ApiResponse:
        path, authority = _target(request)
        refused = self.authorizer.authorize(_request_info(request, authority))
        if refused is not None:
            return error(refused.status, refused.text, refused.headers)
        found = match_route(path)
        if found is None:
            return error(404, "there is nothing here")
        methods, names = found
        method = request.method.decode("ascii", "replace")
        if method not in methods and not (method == "HEAD" and "GET" in methods):
            allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
            text = f"there is no {method} here; there is {allowed}"
            return error(405, text[:200], ((b"Allow", allowed.encode()),))
        content: Any = request.content
        body = content.read() if content is not None else b""
        content_types = list(request.requestHeaders.getRawHeaders(b"content-type") or [])
        if not _is_json(content_types, needed=bool(body)):
            return error(415, "the body has to be application/json")
        try:
            return await methods["GET" if method == "HEAD" else method](
                self._api, ApiRequest(names, body)
            )
        except AdminError as mistake:
            return error(mistake.status, mistake.text)

    def _internal_error(self, failure: Failure) -> ApiResponse:
        self.log.failure("while answering the operator", failure)
        return error(500, "something went wrong, which the log tells")


def _target(request: Request) -> tuple[str, str | None]:
    """The path that is asked for, and whose it is said to be, if it is."""
    path = request.path.decode("ascii", "replace")
    absolute = _ABSOLUTE.fullmatch(path)
    return (path, None) if absolute is None else (absolute[2] or "/", absolute[1])


def _request_info(request: Request, authority: str | None) -> RequestInfo:
    """
    RFC 9112, 3.2.2: who gets a target in absolute-form "MUST ignore the received
    Host header field (if any)"; `authority` takes its place.
    """
    headers = request.requestHeaders

    def values(name: str) -> list[str]:
        # As octets, for not all that comes is UTF-8.
        return [value.decode("latin-1") for value in headers.getRawHeaders(name.encode()) or []]

    preflight = bool(values("access-control-request-method"))
    return RequestInfo(
        values("host") if authority is None else [authority],
        values("origin"),
        values("sec-fetch-site"),
        values("authorization"),
        preflight,
    )


def _is_json(content_types: list[bytes], needed: bool) -> bool:
    if not content_types:
        return not needed
    return len(content_types) == 1 and content_types[0].partition(b";")[0].strip().lower() == JSON


def _write_response(request: Request, response: ApiResponse) -> None:
    request.setResponseCode(response.status)
    request.setHeader(b"content-type", response.content_type)
    request.setHeader(b"content-length", b"%d" % len(response.body))
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-content-type-options", b"nosniff")
    for name, value in response.headers:
        request.responseHeaders.addRawHeader(name, value)
    if request.method != b"HEAD":
        request.write(response.body)
    request.finish()
