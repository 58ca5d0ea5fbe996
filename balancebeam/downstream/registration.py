"""
The reference registration API, `POST /register`, on a frontend's listeners.

Servers announce themselves here. The endpoint takes the place of the dispatcher in a route: it
checks the origin of the request, collects its body and passes that to a handler.
"""

from __future__ import annotations

from typing import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.admission.admission import Admission
from balancebeam.core.networks import NetworkSet
from balancebeam.downstream.exchange import ClientExchange
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for
from balancebeam.protocols.http1.local_reply import (
    is_json,
    jsend_error,
    jsend_fail,
    wrong_method,
)
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.explanation import ExplainedRequest, Explanation

# The path of the reference registration API.
REGISTRATION_PATH = b"/register"

# Networks from which registration is always accepted.
LOOPBACK = ("127.0.0.0/8", "::1/128")

# Largest body in bytes. A registration has about a hundred; the limit only bounds memory.
MAX_BODY = 64 * 1024

# Registers the server that a request body describes; the result is the response's status and
# body.
RegistrationHandler = Callable[[bytes], "Deferred[tuple[int, bytes]]"]


class RegistrationEndpoint:
    """
    Responds to registration requests, in the place of a dispatcher.

    A request that is not accepted is rejected before its body is read, so that it causes neither
    a health check nor a change.

    Args:
        networks: Networks (CIDR) besides loopback from which registration is accepted.
        handler: Registers a server.
    """

    log = Logger()

    def __init__(self, networks: tuple[str, ...], handler: RegistrationHandler) -> None:
        self._networks = NetworkSet((*LOOPBACK, *networks))
        self._handler = handler

    def dispatch(self, exchange: Exchange, admission: Admission) -> None:
        """Check a request and read its body; see `RequestHandler.dispatch`."""
        # Only HTTP frontends have an endpoint.
        assert isinstance(exchange, ClientExchange)
        exchange.received_at = exchange.attempt_at = exchange.dispatcher.perf_counter()
        rejection = None if admission.unrestricted else admission.admit(exchange)
        if rejection is not None:
            exchange.reject(rejection)
        elif not self._networks.contains(exchange.client) or _via_untrusted_proxy(exchange):
            exchange.local_reply(403, "registration from this address is not allowed")
        elif exchange.method != b"POST":
            body = jsend_fail(wrong_method(exchange.method.decode("latin-1")))
            exchange.send_reply(405, body, ((b"Allow", b"POST"),))
        elif _from_browser(exchange):
            exchange.local_reply(403, "registration from web pages is not allowed")
        elif not is_json(exchange.field_values(b"content-type")):
            exchange.local_reply(415, "registration requires Content-Type: application/json")
        else:
            self._read_body(exchange)

    def explain(self, request: ExplainedRequest) -> Explanation:
        """Explain the response to a request without a body; see `RequestHandler.explain`."""
        if not self._networks.contains(request.client):
            return Explanation(status=403)
        # A registration has a body, and a Content-Type for it.
        return Explanation(status=415 if request.method == b"POST" else 405)

    def _read_body(self, exchange: ClientExchange) -> None:
        pending_body, exchange.pending_body = exchange.pending_body, ()
        collector = _BodyCollector(exchange, self._body_complete)
        # The collector has the methods that an exchange calls on its upstream connection.
        exchange.connection = collector  # type: ignore[assignment]
        if exchange.awaiting_100_continue:
            exchange.send_100_continue()
        if pending_body or exchange.body_complete:
            collector.send_body(b"".join(pending_body), exchange.body_complete, b"")

    def _body_complete(self, exchange: ClientExchange, body: bytes) -> None:
        """Pass `body` to the handler and respond with its result."""

        def respond(response: tuple[int, bytes]) -> None:
            if not exchange.finished:
                exchange.connection = None
                exchange.send_reply(*response)

        def handler_failed(failure: Failure) -> tuple[int, bytes]:
            self.log.failure("registration failed with an internal error", failure)
            return 500, jsend_error("internal error")

        def respond_failed(failure: Failure) -> None:
            self.log.failure("response to a registration failed with an internal error", failure)

        registered = self._handler(body)
        registered.addErrback(handler_failed).addCallback(respond).addErrback(respond_failed)


class _BodyCollector:
    """
    Collects a request body, in the place of an upstream connection.

    Args:
        exchange: The request.
        on_complete: Called with the exchange and its body.
    """

    def __init__(
        self, exchange: ClientExchange, on_complete: Callable[[ClientExchange, bytes], None]
    ) -> None:
        self._exchange = exchange
        self._on_complete = on_complete
        self._content = b""

    def send_body(self, content: bytes, last: bool, trailers: bytes) -> None:
        """Append `content`; see `RequestSender.send_body`."""
        exchange = self._exchange
        if exchange.finished:
            return
        self._content += content
        if len(self._content) > MAX_BODY:
            exchange.connection = None
            exchange.local_reply(413, "request body too large")
        elif last:
            self._on_complete(exchange, self._content)

    def abandon(self) -> None:
        """Do nothing: the client has disconnected, and a complete registration still counts."""

    def pause_reading(self) -> None:
        """Do nothing: the response is short."""

    def resume_reading(self) -> None:
        """Do nothing: the response is short."""


def _via_untrusted_proxy(exchange: ClientExchange) -> bool:
    """
    Whether an untrusted proxy relayed the request.

    Such a proxy may run on this host, so a loopback peer does not prove a local origin. Detected
    by forwarding headers that name another address than the peer's.
    """
    peer, rare_fields = exchange.peer, exchange.head.rare_fields
    if exchange.client != peer:
        # A trusted proxy has named the client.
        return False
    if rare_fields.forwarded_for:
        chain = iter_x_forwarded_for(rare_fields.forwarded_for)
    else:
        chain = iter_forwarded(b",".join(exchange.field_values(b"forwarded")))
    return any(address != peer for address in chain)


def _from_browser(exchange: ClientExchange) -> bool:
    """
    Whether a browser sent the request on behalf of a web page.

    Frontends accept any Host, so that even a page of the same origin may belong to an attacker
    (DNS rebinding). A server that registers is never a web page.
    """
    sites = exchange.field_values(b"sec-fetch-site")
    return bool(exchange.field_values(b"origin")) or any(site != b"none" for site in sites)
