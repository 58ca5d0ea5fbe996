"""One request of the http door, and its response on the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from balancebeam.core.failures import UpstreamFailure
from balancebeam.protocols.http1.body import chunk, last_chunk
from balancebeam.protocols.http1.local_reply import error_body, http_date
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.protocols.proxy_protocol import ProxiedConnection
from balancebeam.proxy.exchange import Fields
from balancebeam.proxy.http_exchange import MessageExchange

if TYPE_CHECKING:
    from balancebeam.downstream.http1.channel import HttpChannel
    from balancebeam.proxy.dispatcher import BalancerResource

CONTINUE = 100

# The end of nearly every response head.
_PLAIN_END = b"Via: 1.1 balancebeam\r\n\r\n"


class HttpExchange(MessageExchange):
    """
    Writes a response to an `HttpChannel`, framed as the client can read it.

    `persistent`: the client's connection goes on after this. `chunking`: the
    body goes to the client in chunked transfer coding. `framed`: the client
    can tell a cut body from a whole one. `_held` is a head that waits for the
    beginning of its body.
    """

    chunking = False
    framed = True
    _held = b""

    def __init__(
        self, channel: HttpChannel, spine: BalancerResource, head: RequestHead, wire: bytes
    ) -> None:
        # What `super().__init__` does, without the call: this runs for every
        # request.
        self.spine = spine
        self.head = head
        self.method = head.method
        self.wire = wire
        self.client = channel.client
        self.channel = channel
        self.persistent = head.persistent
        site = channel.site
        if site.unusual:
            self.observer = site.observer
            self.begun = site.ticker.time()
            self.persistent = head.persistent and not site.draining
        if head.extras.upgrade:
            self.upgrade = head.extras.upgrade

    @property
    def client_key(self) -> bytes:
        channel = self.channel
        if self.client is channel.client:
            return channel.client_key
        return super().client_key

    @property
    def came_by(self) -> ProxiedConnection | None:
        return self.channel.came_by

    def client_transport(self) -> Any:
        return self.channel.transport

    def respond_whole(self, head: ResponseHead, body: bytes) -> None:
        self.responded = True
        self.status = head.status
        self.octets = len(body)
        if self.persistent and head.usual and self.head.minor:
            # What nearly all responses are: one join, one write.
            self.channel.transport.write(b"".join((head.wire, _PLAIN_END, body)))
        else:
            self.channel.transport.write(head.wire + self._end_of_head(head) + body)
        self.ended = True
        self.spine.finished(self)
        self.channel.exchange_done(self.persistent)

    def respond(self, head: ResponseHead, length: int) -> None:
        self.responded = True
        self.status = head.status
        if length < 0:
            if self.head.minor:
                self.chunking = True
            else:
                # RFC 9112, 6.1: no transfer coding to a client that may not
                # know it; the end of the connection ends the body.
                self.framed = False
                self.persistent = False
        if not self.body_complete:
            # The server answers before it has heard all. Where the rest of
            # the body ends may never be known.
            self.persistent = False
        self.spine.answering(self)
        # A small body goes out with its head.
        self._held = head.wire + self._end_of_head(head)
        if self.channel.backlogged and self.connection is not None:
            self.connection.pause_reading()

    def _end_of_head(self, head: ResponseHead) -> bytes:
        lines: list[bytes] = []
        if not head.dated:
            # RFC 9110, 6.6.1: a recipient with a clock "MUST record the time
            # it was received and append a corresponding Date header field".
            lines.append(b"Date: %b\r\n" % http_date(self.spine.pool.reactor.seconds()))
        lines.append(b"Via: 1.%d balancebeam\r\n" % head.minor)
        if self.chunking:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        options = []
        if head.upgrade and head.status in (101, 426):
            # RFC 9110, 15.5.22: "The server MUST send an Upgrade header field
            # in a 426 response".
            lines.append(b"Upgrade: %b\r\n" % head.upgrade)
            options.append(b"upgrade")
        if head.status != 101:
            if not self.persistent:
                options.append(b"close")
            elif not self.head.minor:
                options.append(b"keep-alive")
        if options:
            lines.append(b"Connection: %b\r\n" % b", ".join(options))
        lines.append(b"\r\n")
        return b"".join(lines)

    def relay(self, data: bytes) -> None:
        self.octets += len(data)
        if self.chunking:
            data = chunk(data)
        if self._held:
            data, self._held = self._held + data, b""
        self.channel.transport.write(data)

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self.channel.transport.write(held)

    def finish(self, content: bytes, trailers: bytes) -> None:
        self.octets += len(content)
        if self.chunking:
            content = (chunk(content) if content else b"") + last_chunk(trailers)
        if self._held or content:
            self.channel.transport.write(self._held + content)
        self._done()

    def informational(self, head: ResponseHead) -> None:
        if head.status == CONTINUE:
            self.awaits_continue = False
        # RFC 9110, 15.2: "A server MUST NOT send a 1xx response to an
        # HTTP/1.0 client."
        if self.head.minor:
            self.channel.transport.write(head.wire + b"\r\n")

    def invite(self) -> None:
        """Tell a client that waits for it to send the body (RFC 9110, 10.1.1)."""
        self.awaits_continue = False
        self.channel.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def cut(self, why: UpstreamFailure) -> None:
        self.spine.cut(self, why)
        if self._held:
            # Nothing of the response has left yet.
            self._held = b""
            self.chunking = False
            self.answer(why.status, why.for_client)
            return
        self.ended = self.incomplete = True
        self.spine.finished(self)
        channel = self.channel
        channel.exchange = None
        if self.framed:
            # What was relayed reaches the client, and then its connection
            # ends before the body does.
            channel.lose()
        else:
            # Only a reset tells this client that there should have been more.
            channel.abort()

    def answer(self, status: int, text: str, fields: Fields = ()) -> None:
        self.say(status, error_body(text) if status >= 400 else b"", fields)

    def say(self, status: int, body: bytes, fields: Fields = ()) -> None:
        """Answer with a body of the proxy's own, which is JSON. No other answer has begun."""
        self.responded = True
        self.status = status
        if not self.head.minor:
            self.persistent = False
        elif not self.body_complete:
            # RFC 9110, 10.1.1: a client that awaits a 100 may or may not send
            # the body after a final status; nobody knows where it goes on.
            expects = self.head.extras.expects_continue
            self.persistent = self.persistent and not expects and self.channel.may_discard()
        bodyless = self.method == b"HEAD"
        self.octets = 0 if bodyless else len(body)
        self.channel.say(status, body, fields, bodyless, self.persistent)
        self._done()

    def _done(self) -> None:
        self.ended = True
        self.spine.finished(self)
        self.channel.exchange_done(self.persistent)

    # Tunnels.

    def switch(self, head: ResponseHead) -> None:
        self.responded = True
        self.status = 101
        self.spine.answering(self)
        self.channel.transport.write(head.wire + self._end_of_head(head))
        self.channel.open_tunnel()

    def tunnel_data(self, data: bytes) -> None:
        self.octets += len(data)
        self.channel.quiet_since = self.spine.pool.ticker.now
        self.channel.transport.write(data)

    def tunnel_ended(self, clean: bool) -> None:
        if clean:
            self.channel.end_tunnel()
        else:
            self.channel.abort()

    # Backpressure.

    def pause_upload(self) -> None:
        self.upload_paused = True
        self.channel.pause_reading()

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            self.channel.resume_reading()
