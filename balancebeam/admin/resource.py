"""The admin listener's one resource: guards, finds what is asked for, and answers."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.admin.api import Api, Wanted, find
from balancebeam.admin.auth import Asking, Guard
from balancebeam.admin.operations import Mistake
from balancebeam.admin.responses import JSON, Answer, error

_ABSOLUTE = re.compile(r"https?://([^/]*)(/.*)?", re.IGNORECASE)


class AdminResource(Resource):
    """Answers all requests of the admin listener."""

    isLeaf = True
    log = Logger()

    def __init__(self, api: Api, guard: Guard) -> None:
        super().__init__()
        self.guard = guard
        self._api = api

    def render(self, request: Request) -> int:
        """Answer now or later."""
        answering = Deferred.fromCoroutine(self._answer(request))
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def give(answer: Answer) -> None:
            if not gone:
                _write(request, answer)

        answering.addErrback(self._failed).addCallback(give)
        answering.addErrback(lambda failure: self.log.failure("while answering", failure))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> Answer:
        path, authority = _target(request)
        refused = self.guard.check(_asking(request, authority))
        if refused is not None:
            return error(refused.status, refused.text, refused.fields)
        found = find(path)
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
        kinds = list(request.requestHeaders.getRawHeaders(b"content-type") or [])
        if not _is_json(kinds, needed=bool(body)):
            return error(415, "the body has to be application/json")
        try:
            return await methods["GET" if method == "HEAD" else method](
                self._api, Wanted(names, body)
            )
        except Mistake as mistake:
            return error(mistake.status, mistake.text)

    def _failed(self, failure: Failure) -> Answer:
        self.log.failure("while answering the operator", failure)
        return error(500, "something went wrong, which the log tells")


def _target(request: Request) -> tuple[str, str | None]:
    """The path that is asked for, and whose it is said to be, if it is."""
    path = request.path.decode("ascii", "replace")
    absolute = _ABSOLUTE.fullmatch(path)
    return (path, None) if absolute is None else (absolute[2] or "/", absolute[1])


def _asking(request: Request, authority: str | None) -> Asking:
    """
    RFC 9112, 3.2.2: who gets a target in absolute-form "MUST ignore the received
    Host header field (if any)"; `authority` takes its place.
    """
    headers = request.requestHeaders

    def values(name: str) -> list[str]:
        # As octets, for not all that comes is UTF-8.
        return [value.decode("latin-1") for value in headers.getRawHeaders(name.encode()) or []]

    preflight = bool(values("access-control-request-method"))
    return Asking(
        values("host") if authority is None else [authority],
        values("origin"),
        values("sec-fetch-site"),
        values("authorization"),
        preflight,
    )


def _is_json(kinds: list[bytes], needed: bool) -> bool:
    if not kinds:
        return not needed
    return len(kinds) == 1 and kinds[0].partition(b";")[0].strip().lower() == JSON


def _write(request: Request, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    request.setHeader(b"content-type", answer.kind)
    request.setHeader(b"content-length", b"%d" % len(answer.body))
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-content-type-options", b"nosniff")
    for name, value in answer.fields:
        request.responseHeaders.addRawHeader(name, value)
    if request.method != b"HEAD":
        request.write(answer.body)
    request.finish()
