"""
HTTP exchanges of requests that arrive through a `twisted.web` resource tree.

`twisted.web` reads the whole request before it renders it, sends 100 (Continue) itself, and
frames the response. The exchange adapts this to the dispatcher. Upgrades, informational
responses and trailers have no equivalent in `twisted.web` and are dropped.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from balancebeam.core.errors import RequestError
from balancebeam.core.failures import UpstreamFailure
from balancebeam.net.addresses import peer_ip
from balancebeam.protocols.http1 import local_reply
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import BUFFER_SIZE, Exchange, Fields
from balancebeam.proxy.forwarding import ForwardingPolicy
from balancebeam.proxy.http_exchange import HttpExchange
from balancebeam.proxy.interfaces import Observer, Pipeline

# Fields that `twisted.web` has processed. They do not apply to the forwarded request.
_CONSUMED_FIELDS = frozenset(
    (b"transfer-encoding", b"content-length", b"expect", b"upgrade", b"trailer")
)


class WebPipeline(Pipeline[Exchange], Protocol):
    """The resource that renders requests; see `BalancerResource` for its attributes."""

    path: bytes
    trusted_proxies: TrustedProxies
    forwarding: ForwardingPolicy
    idle_timeout: float
    observer: Observer[Exchange] | None
    parser: RequestHeadParser

    def dispatch(self, exchange: Exchange) -> None:
        """Process a request until it is finished."""


def dispatch_web_request(dispatcher: WebPipeline, request: Request) -> None:
    """
    Parse `request` and dispatch it.

    Args:
        dispatcher: The resource that renders the request.
        request: The request; it is finished later, when the exchange is.
    """
    peer = peer_ip(request.getClientAddress())
    try:
        head = dispatcher.parser.parse(_build_head(dispatcher, request))
    except RequestError as error:
        _write_local_reply(dispatcher, request, error.status, error.reason, ())
        return
    proto = b"https" if request.isSecure() else b"http"
    # The local address replaces a missing Host, and `_build_head` has added one.
    local = b""
    trusted = dispatcher.trusted_proxies.contains(peer)
    upstream_head = dispatcher.forwarding.build_head(
        head, peer.encode("ascii"), proto, local, trusted
    )
    client = dispatcher.trusted_proxies.client_ip(peer, head) if trusted else peer
    exchange = WebExchange(dispatcher, head, upstream_head, client, request)
    exchange.via = dispatcher.forwarding.settings.via_name
    exchange.observer = dispatcher.observer
    request.notifyFinish().addErrback(exchange.connection_lost)
    if head.length:
        exchange.expect_body()
        exchange.pump()
    dispatcher.dispatch(exchange)


def _build_head(dispatcher: WebPipeline, request: Request) -> bytes:
    """The head of `request` in wire form, so that the common parser checks it."""
    lines = [b"%b %b HTTP/1.1" % (request.method, _target(dispatcher.path, request))]
    for name, values in request.requestHeaders.getAllRawHeaders():
        if name.lower() not in _CONSUMED_FIELDS:
            lines += [b"%b: %b" % (name, value) for value in values]
    content = request.content
    if content is not None:
        length = content.seek(0, 2)
        content.seek(0)
        if length or request.requestHeaders.hasHeader(b"content-length"):
            lines.append(b"Content-Length: %d" % length)
    if not request.requestHeaders.hasHeader(b"host"):
        lines.append(b"Host: " + request.getRequestHostname())
    return b"\r\n".join(lines) + b"\r\n"


def _target(base: bytes, request: Request) -> bytes:
    """
    The target to forward: `base`, then the request's path below the mounted resource.

    Percent-encoding and query are kept byte for byte.

    Raises:
        RequestError: The target is in absolute form.
    """
    uri: bytes = request.uri
    if uri == b"*":
        return uri
    if not uri.startswith(b"/"):
        # `twisted.web` looks up resources by the whole of such a target, scheme and host
        # included, so the path below the mounted resource is not known.
        raise RequestError(400, "request target in absolute form")
    path, separator, query = uri.partition(b"?")
    segments = path.split(b"/")[len(request.prepath or ()) + 1 :]
    return base + b"/" + b"/".join(segments) + separator + query


def _write_local_reply(
    dispatcher: WebPipeline, request: Request, status: int, text: str, fields: Fields
) -> None:
    """Write a complete response made by the proxy, and finish `request`."""
    body = local_reply.jsend_error(text) if status >= 400 else b""
    request.setResponseCode(status, local_reply.reason_phrase(status))
    # A reply without a body has no Content-Type; twisted.web would add one.
    request.defaultContentType = None
    request.setHeader(b"date", local_reply.http_date(dispatcher.clock()))
    for name, value in local_reply.local_reply_fields(body, fields):
        request.setHeader(name, value)
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


@implementer(IPushProducer)
class WebExchange(HttpExchange):
    """
    The exchange of one `twisted.web` request, and the producer of its response.

    Args:
        dispatcher: The resource that renders the request.
        head: The parsed request head.
        upstream_head: The head to send to a server, in wire form.
        client: IP address of the client.
        request: The `twisted.web` request.

    Attributes:
        via: The name of this proxy in Via; empty to add none.
    """

    dispatcher: WebPipeline
    via = b"balancebeam"

    def __init__(
        self,
        dispatcher: WebPipeline,
        head: RequestHead,
        upstream_head: bytes,
        client: str,
        request: Request,
    ) -> None:
        super().__init__(dispatcher, head, upstream_head, client)
        self._request = request
        if not head.minor:
            self.http_version = "1.0"
        # When the client stopped reading, on the ticker; `None` while it reads.
        self._paused_since: float | None = None

    def connection_lost(self, reason: Failure) -> None:
        """End the exchange: the client's connection was lost."""
        self.client_disconnected()

    def pump(self) -> None:
        """Upload the stored body until the server stops reading or it is complete."""
        content: Any = self._request.content
        while not self.upload_paused and not self.body_complete and not self.finished:
            data = content.read(BUFFER_SIZE)
            received = self.body_bytes_received + len(data)
            self.upload(data, last=received >= self.head.length)

    def client_transport(self) -> Any:
        return self._request.channel

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        if self.method != b"HEAD" and status >= 400:
            self.body_bytes_sent = len(local_reply.jsend_error(text))
        self._mark_finished(status)
        _write_local_reply(self.dispatcher, self._request, status, text, fields)

    def informational_received(self, head: ResponseHead) -> None:
        """Drop the response: `twisted.web` cannot send it."""

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        self._start_response(head)
        self.body_bytes_sent = len(body)
        if body:
            self._request.write(body)
        self._finish()

    def response_started(self, head: ResponseHead, length: int) -> None:
        self._start_response(head)
        self.dispatcher.response_started(self)
        self._request.registerProducer(self, True)

    def response_data(self, data: bytes) -> None:
        self.body_bytes_sent += len(data)
        self._request.write(data)

    def flush(self) -> None:
        """Do nothing: no bytes are buffered here."""

    def response_finished(self, content: bytes, trailers: bytes) -> None:
        self.body_bytes_sent += len(content)
        if content:
            self._request.write(content)
        self._request.unregisterProducer()
        self._finish()

    def response_aborted(self, failure: UpstreamFailure) -> None:
        self.dispatcher.response_aborted(self, failure)
        self.truncated = True
        self._mark_finished(self.status)
        request = self._request
        channel: Any = request.channel
        request.unregisterProducer()
        # Reset the connection: a regular close would make a body without Content-Length look
        # complete. Twisted has no common interface for it: HTTP/2 streams have the method,
        # HTTP/1.1 channels only on their transport, and some transports not at all.
        target: Any
        for target in (channel, getattr(channel, "transport", None)):
            if hasattr(target, "abortConnection"):
                target.abortConnection()
                return
        request.loseConnection()

    def _start_response(self, head: ResponseHead) -> None:
        self.downstream_response_started = True
        self.status = head.status
        request = self._request
        lines: list[bytes] = head.forward_bytes.split(b"\r\n")
        reason = lines[0].split(b" ", 2)[2]
        request.setResponseCode(head.status, reason)
        # The response has the server's fields only, without the defaults of `twisted.web`.
        request.defaultContentType = None
        request.responseHeaders.removeHeader(b"server")
        if head.has_date:
            request.responseHeaders.removeHeader(b"date")
        for line in lines[1:-1]:
            name, _, value = line.partition(b":")
            request.responseHeaders.addRawHeader(name, value.strip(b" \t"))
        if self.via:
            request.responseHeaders.addRawHeader(b"via", b"1.%d %b" % (head.minor, self.via))

    def _finish(self) -> None:
        self._mark_finished(self.status)
        self._request.finish()

    def _mark_finished(self, status: int) -> None:
        self.status = status
        self.finished = True
        self.dispatcher.request_finished(self)

    def client_stalled(self, now: float) -> bool:
        since = self._paused_since
        return since is not None and now - since >= self.dispatcher.idle_timeout

    def pauseProducing(self) -> None:
        self._paused_since = self.dispatcher.ticker.now
        if self.connection is not None:
            self.connection.pause_reading()

    def resumeProducing(self) -> None:
        self._paused_since = None
        if self.connection is not None:
            self.connection.resume_reading()

    def stopProducing(self) -> None:
        """Do nothing: `connection_lost` follows and ends the exchange."""

    def pause_upload(self) -> None:
        self.upload_paused = True

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            self.pump()

    # Upgrades: unreachable, because the Upgrade field is not forwarded (`_CONSUMED_FIELDS`)

    def upgraded(self, head: ResponseHead) -> None:
        raise AssertionError("upgrade without an Upgrade field in the request")

    def tunnel_data(self, data: bytes) -> None:
        raise AssertionError("upgrade without an Upgrade field in the request")

    def tunnel_ended(self, clean: bool) -> None:
        raise AssertionError("upgrade without an Upgrade field in the request")
