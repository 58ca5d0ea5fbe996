"""
The web door: requests that come through an ordinary `twisted.web` tree.

`twisted.web` has read the whole request before it shows it, sends
100-continue by itself, and frames the response. Its requests take the same
way as all others. What it has no means for does not pass this door: upgrades,
informational responses and trailers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from balancebeam.core.errors import RequestError
from balancebeam.core.failures import UpstreamFailure
from balancebeam.net.addresses import peer_ip
from balancebeam.protocols.http1 import local_reply
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.exchange import BUFFER_SIZE, Fields
from balancebeam.proxy.http_exchange import HttpExchange

if TYPE_CHECKING:
    from balancebeam.proxy.dispatcher import BalancerResource

# What `twisted.web` has dealt with, so that it says nothing about the request
# that goes on.
_CONSUMED_FIELDS = frozenset(
    (b"transfer-encoding", b"content-length", b"expect", b"upgrade", b"trailer")
)


def dispatch_web_request(dispatcher: BalancerResource, request: Request) -> None:
    """Forward `request` over `dispatcher`; it is answered, sooner or later."""
    peer = peer_ip(request.getClientAddress())
    try:
        head = dispatcher.parser.parse(_build_head(dispatcher, request))
    except RequestError as refused:
        _write_local_reply(dispatcher, request, refused.status, refused.reason, ())
        return
    proto = b"https" if request.isSecure() else b"http"
    # `_build_head` has seen to it that there is a Host, so none is needed here.
    trusted = dispatcher.trusted_proxies.contains(peer)
    wire = dispatcher.forwarding.build_head(head, peer.encode("ascii"), proto, b"", trusted)
    client = dispatcher.trusted_proxies.client_ip(peer, head) if trusted else peer
    exchange = WebExchange(dispatcher, head, wire, client, request)
    exchange.observer = dispatcher.observer
    exchange.started_at = dispatcher.connections.ticker.wall_time()
    request.notifyFinish().addErrback(exchange.connection_lost)
    if head.length:
        exchange.expect_body()
        exchange.pump()
    dispatcher.dispatch(exchange)


def _build_head(dispatcher: BalancerResource, request: Request) -> bytes:
    """The head of `request` as bytes again, to be read like that of any other."""
    lines = [b"%b %b HTTP/1.1" % (request.method, _target(dispatcher.path, request))]
    for name, values in request.requestHeaders.getAllRawHeaders():
        if name.lower() not in _CONSUMED_FIELDS:
            lines += [b"%b: %b" % (name, value) for value in values]
    content = request.content
    if content is not None:
        content.seek(0, 2)
        length = content.tell()
        content.seek(0)
        if length or request.requestHeaders.hasHeader(b"content-length"):
            lines.append(b"Content-Length: %d" % length)
    if not request.requestHeaders.hasHeader(b"host"):
        lines.append(b"Host: " + request.getRequestHostname())
    return b"\r\n".join(lines) + b"\r\n"


def _target(base: bytes, request: Request) -> bytes:
    """
    The request's target below the place where the resource is mounted, byte
    for byte, behind `base`.
    """
    uri: bytes = request.uri
    if uri == b"*":
        return uri
    if not uri.startswith(b"/"):
        # `base` is to stand before whatever is asked for, and `twisted.web`
        # finds resources by the whole of such a target.
        raise RequestError(400, "a target in absolute form")
    path, mark, query = uri.partition(b"?")
    rest = path.split(b"/")[len(request.prepath or ()) + 1 :]
    return base + b"/" + b"/".join(rest) + mark + query


def _write_local_reply(
    dispatcher: BalancerResource, request: Request, status: int, text: str, fields: Fields
) -> None:
    body = local_reply.jsend_error(text) if status >= 400 else b""
    request.setResponseCode(status, local_reply.reason_phrase(status))
    request.setHeader(b"date", local_reply.http_date(dispatcher.connections.reactor.seconds()))
    for name, value in local_reply.local_reply_fields(body, fields):
        request.setHeader(name, value)
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


@implementer(IPushProducer)
class WebExchange(HttpExchange):
    """One request of the web door; the producer of its response."""

    def __init__(
        self,
        dispatcher: BalancerResource,
        head: RequestHead,
        upstream_head: bytes,
        client: str,
        request: Request,
    ) -> None:
        super().__init__(dispatcher, head, upstream_head, client)
        self._request = request
        # When the client began to take nothing, on the ticker.
        self._paused_since: float | None = None

    def connection_lost(self, reason: Failure) -> None:
        """The client's connection is gone."""
        self.client_disconnected()

    def pump(self) -> None:
        """Send on what `twisted.web` has stored of the body, as the server takes it."""
        content: Any = self._request.content
        while not self.upload_paused and not self.body_complete and not self.finished:
            data = content.read(BUFFER_SIZE)
            self.upload(data, last=content.tell() >= self.head.length)

    def client_transport(self) -> Any:
        return self._request.channel

    # The response.

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        if self.method != b"HEAD" and status >= 400:
            self.body_bytes_sent = len(local_reply.jsend_error(text))
        self._mark_finished(status)
        _write_local_reply(self.dispatcher, self._request, status, text, fields)

    def informational_received(self, head: ResponseHead) -> None:
        """There is no way to say this to a client of `twisted.web`."""

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
        """Nothing is held back here."""

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
        # An orderly end would make a body without a length look whole.
        transport: Any = getattr(channel, "transport", None)
        request.unregisterProducer()
        if hasattr(channel, "abortConnection"):
            channel.abortConnection()
        elif hasattr(transport, "abortConnection"):
            transport.abortConnection()
        else:
            request.loseConnection()

    def _start_response(self, head: ResponseHead) -> None:
        self.downstream_response_started = True
        self.status = head.status
        request = self._request
        lines: list[bytes] = head.forward_bytes.split(b"\r\n")
        reason = lines[0].split(b" ", 2)[2]
        request.setResponseCode(head.status, reason)
        # The server's fields are the response's, not those of `twisted.web`.
        request.defaultContentType = None
        request.responseHeaders.removeHeader(b"server")
        if head.has_date:
            request.responseHeaders.removeHeader(b"date")
        for line in lines[1:-1]:
            name, _, value = line.partition(b":")
            request.responseHeaders.addRawHeader(name, value.strip(b" \t"))
        request.responseHeaders.addRawHeader(b"via", b"1.%d balancebeam" % head.minor)

    def _finish(self) -> None:
        self._mark_finished(self.status)
        self._request.finish()

    def _mark_finished(self, status: int) -> None:
        self.status = status
        self.finished = True
        self.dispatcher.request_finished(self)

    # Backpressure.

    def client_stalled(self, now: float) -> bool:
        since = self._paused_since
        return since is not None and now - since >= self.dispatcher.idle_timeout

    def pauseProducing(self) -> None:
        self._paused_since = self.dispatcher.connections.ticker.now
        if self.connection is not None:
            self.connection.pause_reading()

    def resumeProducing(self) -> None:
        self._paused_since = None
        if self.connection is not None:
            self.connection.resume_reading()

    def stopProducing(self) -> None:
        """The client has left, which `connection_lost` deals with."""

    def pause_upload(self) -> None:
        self.upload_paused = True

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            self.pump()

    # Tunnels do not come this way: the Upgrade field stays behind.

    def upgraded(self, head: ResponseHead) -> None:
        raise AssertionError("no upgrade was asked for")

    def tunnel_data(self, data: bytes) -> None:
        raise AssertionError("no upgrade was asked for")

    def tunnel_ended(self, clean: bool) -> None:
        raise AssertionError("no upgrade was asked for")
