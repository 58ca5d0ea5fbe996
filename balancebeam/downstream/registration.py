"""S4's `POST /register` on the port where traffic comes in."""

from __future__ import annotations

from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.admission.admission import Admission
from balancebeam.core.networks import NetworkSet
from balancebeam.downstream.http1.exchange import Http1Exchange
from balancebeam.protocols.http1.body import ChunkedReader
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for
from balancebeam.proxy.dispatcher import Dispatcher

# Where S4's servers knock.
REGISTRATION_PATH = b"/register"

# Networks whose servers may always register.
LOOPBACK = ("127.0.0.0/8", "::1/128")

# Octets of a body.
MAX_BODY = 64 * 1024

# What makes an answer of the body of a request: its status, and its body.
RegistrationHandler = Callable[[bytes], "Deferred[tuple[int, bytes]]"]


class RegistrationEndpoint:
    """
    Answers those who want to register, instead of a server: those in `networks`
    and on this machine. Others are refused before anything is done for them.
    """

    log = Logger()

    def __init__(
        self, dispatcher: Dispatcher, networks: tuple[str, ...], handler: RegistrationHandler
    ) -> None:
        self._dispatcher = dispatcher
        self._networks = NetworkSet((*LOOPBACK, *networks))
        self._handler = handler

    def dispatch(self, exchange: Any, admission: Admission) -> None:
        """Take a request, in the place of the dispatcher."""
        rejection = None if admission.unrestricted else admission.admit(exchange)
        if rejection is not None:
            self._dispatcher.reject(exchange, rejection)
        elif not self._networks.contains(exchange.client) or _via_untrusted_proxy(exchange):
            exchange.local_reply(403, "servers do not register from there")
        elif exchange.method != b"POST":
            exchange.local_reply(405, "servers register by POST", ((b"Allow", b"POST"),))
        elif _from_browser(exchange):
            exchange.local_reply(403, "servers register, but no web pages")
        elif not _is_json(exchange):
            exchange.local_reply(415, "the body has to be application/json")
        else:
            self._read_body(exchange)

    def _read_body(self, exchange: Http1Exchange) -> None:
        pending_body, exchange.pending_body = exchange.pending_body, ()
        body = _BodyCollector(exchange, self._body_complete)
        exchange.connection = body  # type: ignore[assignment]
        if exchange.awaiting_100_continue:
            exchange.send_100_continue()
        for data in pending_body:
            body.send_body(data)
        if not pending_body and exchange.body_complete:
            self._body_complete(exchange, b"")

    def _body_complete(self, exchange: Http1Exchange, body: bytes) -> None:
        """All of the body is here."""
        answering = self._handler(body)

        def give(answer: tuple[int, bytes]) -> None:
            if not exchange.finished:
                exchange.connection = None
                exchange.send_json(answer[0], answer[1])

        def failed(failure: Failure) -> tuple[int, bytes]:
            self.log.failure("while a server registered", failure)
            return 500, b'{"status": "error", "data": "something went wrong"}'

        answering.addErrback(failed).addCallback(give)
        answering.addErrback(lambda failure: self.log.failure("while answering", failure))


class _BodyCollector:
    """Stands where a connection to a server would, and keeps what that would get."""

    def __init__(
        self, exchange: Http1Exchange, on_complete: Callable[[Http1Exchange, bytes], None]
    ) -> None:
        self._exchange = exchange
        self._on_complete = on_complete
        self._content = b""
        self._chunked_reader = ChunkedReader() if exchange.head.length < 0 else None

    def send_body(self, data: bytes) -> None:
        """More of it, as it is on the wire."""
        exchange = self._exchange
        if exchange.finished:
            return
        self._content += data if self._chunked_reader is None else self._chunked_reader.feed(data)
        if len(self._content) > MAX_BODY:
            exchange.connection = None
            exchange.local_reply(413, "the request body is too large")
        elif exchange.body_complete:
            self._on_complete(exchange, self._content)

    def abandon(self) -> None:
        """The client has gone; nobody waits for the answer."""

    def pause_reading(self) -> None:
        """The answer is short."""

    def resume_reading(self) -> None:
        """The answer is short."""


def _is_json(exchange: Http1Exchange) -> bool:
    kinds = exchange.field_values(b"content-type")
    plain = [kind.partition(b";")[0].strip().lower() for kind in kinds]
    return plain == [b"application/json"]


def _via_untrusted_proxy(exchange: Http1Exchange) -> bool:
    """
    Whether a proxy has sent this for somebody of whom nothing is known, as it is
    not trusted or did not tell. It may stand on this machine, and have the world
    for its clients.
    """
    peer, rare_fields = exchange.channel.client, exchange.head.rare_fields
    if exchange.client != peer:
        return False
    if rare_fields.forwarded_for:
        chain = iter_x_forwarded_for(rare_fields.forwarded_for)
    else:
        chain = iter_forwarded(b",".join(exchange.field_values(b"forwarded")))
    return any(address != peer for address in chain)


def _from_browser(exchange: Http1Exchange) -> bool:
    """
    Whether a web page has sent this. Traffic comes for any host, so that even a
    page of that host may be anybody's (DNS rebinding); and no server is a page.
    """
    sites = exchange.field_values(b"sec-fetch-site")
    return bool(exchange.field_values(b"origin")) or any(site != b"none" for site in sites)
