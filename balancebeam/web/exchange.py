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
from balancebeam.net.transport import peer_ip
from balancebeam.protocols.http1 import local_reply as answers
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.exchange import BUFFER, Fields
from balancebeam.proxy.http_exchange import MessageExchange

if TYPE_CHECKING:
    from balancebeam.proxy.dispatcher import BalancerResource

# What `twisted.web` has dealt with, so that it says nothing about the request
# that goes on.
_SETTLED = frozenset((b"transfer-encoding", b"content-length", b"expect", b"upgrade", b"trailer"))


def forward_web_request(dispatcher: BalancerResource, request: Request) -> None:
    """Forward `request` over `dispatcher`; it is answered, sooner or later."""
    peer = peer_ip(request.getClientAddress())
    try:
        head = dispatcher.parser.parse(_head_of(dispatcher, request))
    except RequestError as refused:
        _answer(dispatcher, request, refused.status, refused.reason, ())
        return
    proto = b"https" if request.isSecure() else b"http"
    # `_head_of` has seen to it that there is a Host, so none is needed here.
    trusted = dispatcher.trusted.contains(peer)
    wire = dispatcher.onward.wire(head, peer.encode("ascii"), proto, b"", trusted)
    client = dispatcher.trusted.client_of(peer, head) if trusted else peer
    exchange = WebExchange(dispatcher, head, wire, client, request)
    exchange.observer = dispatcher.observer
    exchange.begun = dispatcher.pool.ticker.wall_time()
    request.notifyFinish().addErrback(exchange.left)
    if head.length:
        exchange.expect_body()
        exchange.pump()
    dispatcher.forward(exchange)


def _head_of(dispatcher: BalancerResource, request: Request) -> bytes:
    """The head of `request` as bytes again, to be read like that of any other."""
    lines = [b"%b %b HTTP/1.1" % (request.method, _target(dispatcher.path, request))]
    for name, values in request.requestHeaders.getAllRawHeaders():
        if name.lower() not in _SETTLED:
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


def _answer(
    dispatcher: BalancerResource, request: Request, status: int, text: str, fields: Fields
) -> None:
    body = answers.jsend_error(text) if status >= 400 else b""
    request.setResponseCode(status, answers.reason_phrase(status))
    request.setHeader(b"date", answers.http_date(dispatcher.pool.reactor.seconds()))
    for name, value in answers.local_reply_fields(body, fields):
        request.setHeader(name, value)
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


@implementer(IPushProducer)
class WebExchange(MessageExchange):
    """One request of the web door; the producer of its response."""

    def __init__(
        self,
        dispatcher: BalancerResource,
        head: RequestHead,
        wire: bytes,
        client: str,
        request: Request,
    ) -> None:
        super().__init__(dispatcher, head, wire, client)
        self._request = request
        # When the client began to take nothing, on the ticker.
        self._paused_since: float | None = None

    def left(self, reason: Failure) -> None:
        """The client's connection is gone."""
        self.client_disconnected()

    def pump(self) -> None:
        """Send on what `twisted.web` has stored of the body, as the server takes it."""
        content: Any = self._request.content
        while not self.upload_paused and not self.body_complete and not self.ended:
            data = content.read(BUFFER)
            self.upload(data, last=content.tell() >= self.head.length)

    def client_transport(self) -> Any:
        return self._request.channel

    # The response.

    def answer(self, status: int, text: str, fields: Fields = ()) -> None:
        if self.method != b"HEAD" and status >= 400:
            self.octets = len(answers.jsend_error(text))
        self._end(status)
        _answer(self.dispatcher, self._request, status, text, fields)

    def informational(self, head: ResponseHead) -> None:
        """There is no way to say this to a client of `twisted.web`."""

    def respond_whole(self, head: ResponseHead, body: bytes) -> None:
        self._begin(head)
        self.octets = len(body)
        if body:
            self._request.write(body)
        self._finish()

    def respond(self, head: ResponseHead, length: int) -> None:
        self._begin(head)
        self.dispatcher.answering(self)
        self._request.registerProducer(self, True)

    def relay(self, data: bytes) -> None:
        self.octets += len(data)
        self._request.write(data)

    def flush(self) -> None:
        """Nothing is held back here."""

    def finish(self, content: bytes, trailers: bytes) -> None:
        self.octets += len(content)
        if content:
            self._request.write(content)
        self._request.unregisterProducer()
        self._finish()

    def cut(self, failure: UpstreamFailure) -> None:
        self.dispatcher.cut(self, failure)
        self.incomplete = True
        self._end(self.status)
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

    def _begin(self, head: ResponseHead) -> None:
        self.responded = True
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
        self._end(self.status)
        self._request.finish()

    def _end(self, status: int) -> None:
        self.status = status
        self.ended = True
        self.dispatcher.finished(self)

    # Backpressure.

    def is_stuck(self, now: float) -> bool:
        since = self._paused_since
        return since is not None and now - since >= self.dispatcher.idle_timeout

    def pauseProducing(self) -> None:
        self._paused_since = self.dispatcher.pool.ticker.now
        if self.connection is not None:
            self.connection.pause_reading()

    def resumeProducing(self) -> None:
        self._paused_since = None
        if self.connection is not None:
            self.connection.resume_reading()

    def stopProducing(self) -> None:
        """The client has left, which `left` deals with."""

    def pause_upload(self) -> None:
        self.upload_paused = True

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            self.pump()

    # Tunnels do not come this way: the Upgrade field stays behind.

    def switch(self, head: ResponseHead) -> None:
        raise AssertionError("no upgrade was asked for")

    def tunnel_data(self, data: bytes) -> None:
        raise AssertionError("no upgrade was asked for")

    def tunnel_ended(self, clean: bool) -> None:
        raise AssertionError("no upgrade was asked for")
