"""One request of the http door, and its response on the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from balancebeam.core.failures import UpstreamFailure
from balancebeam.protocols.http1.body import encode_chunk, encode_last_chunk
from balancebeam.protocols.http1.local_reply import http_date, jsend_error
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import Exchange, Fields
from balancebeam.proxy.http_exchange import HttpExchange
from balancebeam.proxy.interfaces import Pipeline

if TYPE_CHECKING:
    from balancebeam.downstream.http1.channel import Http1Channel

CONTINUE = 100

# The end of nearly every response head.
_FAST_PATH_HEAD_END = b"Via: 1.1 balancebeam\r\n\r\n"


class Http1Exchange(HttpExchange):
    """
    Writes a response to an `Http1Channel`, framed as the client can read it.

    `persistent`: the client's connection goes on after this. `chunked`: the
    body goes to the client in chunked transfer coding. `framed`: the client
    can tell a cut body from a whole one. `_buffered_head` is a head that waits for the
    beginning of its body.
    """

    chunked = False
    framed = True
    _buffered_head = b""

    def __init__(
        self,
        channel: Http1Channel,
        dispatcher: Pipeline[Exchange],
        head: RequestHead,
        upstream_head: bytes,
    ) -> None:
        # What `super().__init__` does, without the call: this runs for every
        # request.
        self.dispatcher = dispatcher
        self.head = head
        self.method = head.method
        self.upstream_head = upstream_head
        self.client = channel.client
        self.channel = channel
        self.persistent = head.persistent
        site = channel.site
        if site.needs_accounting:
            self.observer = site.observer
            self.started_at = site.ticker.wall_time()
            self.persistent = head.persistent and not site.draining
        if head.rare_fields.upgrade:
            self.upgrade = head.rare_fields.upgrade

    @property
    def client_key(self) -> bytes:
        channel = self.channel
        if self.client is channel.client:
            return channel.client_key
        return super().client_key

    @property
    def proxy_info(self) -> ProxyInfo | None:
        return self.channel.proxy_info

    def client_transport(self) -> Any:
        return self.channel.transport

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        self.downstream_response_started = True
        self.status = head.status
        self.body_bytes_sent = len(body)
        if self.persistent and head.needs_no_added_fields and self.head.minor:
            # What nearly all responses are: one join, one write.
            self.channel.transport.write(b"".join((head.forward_bytes, _FAST_PATH_HEAD_END, body)))
        else:
            self.channel.transport.write(head.forward_bytes + self._build_head_suffix(head) + body)
        self.finished = True
        self.dispatcher.request_finished(self)
        self.channel.response_finished(self.persistent)

    def response_started(self, head: ResponseHead, length: int) -> None:
        self.downstream_response_started = True
        self.status = head.status
        if length < 0:
            if self.head.minor:
                self.chunked = True
            else:
                # RFC 9112, 6.1: no transfer coding to a client that may not
                # know it; the end of the connection ends the body.
                self.framed = False
                self.persistent = False
        if not self.body_complete:
            # The server answers before it has heard all. Where the rest of
            # the body ends may never be known.
            self.persistent = False
        self.dispatcher.response_started(self)
        # A small body goes out with its head.
        self._buffered_head = head.forward_bytes + self._build_head_suffix(head)
        if self.channel.write_blocked and self.connection is not None:
            self.connection.pause_reading()

    def _build_head_suffix(self, head: ResponseHead) -> bytes:
        lines: list[bytes] = []
        if not head.has_date:
            # RFC 9110, 6.6.1: a recipient with a clock "MUST record the time
            # it was received and append a corresponding Date header field".
            lines.append(b"Date: %b\r\n" % http_date(self.dispatcher.clock()))
        lines.append(b"Via: 1.%d balancebeam\r\n" % head.minor)
        if self.chunked:
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

    def response_data(self, data: bytes) -> None:
        self.body_bytes_sent += len(data)
        if self.chunked:
            data = encode_chunk(data)
        if self._buffered_head:
            data, self._buffered_head = self._buffered_head + data, b""
        self.channel.transport.write(data)

    def flush(self) -> None:
        if self._buffered_head:
            held, self._buffered_head = self._buffered_head, b""
            self.channel.transport.write(held)

    def response_finished(self, content: bytes, trailers: bytes) -> None:
        self.body_bytes_sent += len(content)
        if self.chunked:
            content = (encode_chunk(content) if content else b"") + encode_last_chunk(trailers)
        if self._buffered_head or content:
            self.channel.transport.write(self._buffered_head + content)
        self._finish()

    def informational_received(self, head: ResponseHead) -> None:
        if head.status == CONTINUE:
            self.awaiting_100_continue = False
        # RFC 9110, 15.2: "A server MUST NOT send a 1xx response to an
        # HTTP/1.0 client."
        if self.head.minor:
            self.channel.transport.write(head.forward_bytes + b"\r\n")

    def send_100_continue(self) -> None:
        """Tell a client that waits for it to send the body (RFC 9110, 10.1.1)."""
        self.awaiting_100_continue = False
        self.channel.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def response_aborted(self, failure: UpstreamFailure) -> None:
        self.dispatcher.response_aborted(self, failure)
        if self._buffered_head:
            # Nothing of the response has left yet.
            self._buffered_head = b""
            self.chunked = False
            self.local_reply(failure.status, failure.public_message)
            return
        self.finished = self.truncated = True
        self.dispatcher.request_finished(self)
        channel = self.channel
        channel.exchange = None
        if self.framed:
            # What was relayed reaches the client, and then its connection
            # ends before the body does.
            channel.close()
        else:
            # Only a reset tells this client that there should have been more.
            channel.abort()

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        self.send_json(status, jsend_error(text) if status >= 400 else b"", fields)

    def send_json(self, status: int, body: bytes, fields: Fields = ()) -> None:
        """Answer with a body of the proxy's own, which is JSON. No other answer has begun."""
        self.downstream_response_started = True
        self.status = status
        if not self.head.minor:
            self.persistent = False
        elif not self.body_complete:
            # RFC 9110, 10.1.1: a client that awaits a 100 may or may not send
            # the body after a final status; nobody knows where it goes on.
            expects = self.head.rare_fields.expects_continue
            self.persistent = self.persistent and not expects and self.channel.can_discard_body()
        bodyless = self.method == b"HEAD"
        self.body_bytes_sent = 0 if bodyless else len(body)
        self.channel.write_local_reply(status, body, fields, bodyless, self.persistent)
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self.dispatcher.request_finished(self)
        self.channel.response_finished(self.persistent)

    # Tunnels.

    def upgraded(self, head: ResponseHead) -> None:
        self.downstream_response_started = True
        self.status = 101
        self.dispatcher.response_started(self)
        self.channel.transport.write(head.forward_bytes + self._build_head_suffix(head))
        self.channel.start_tunnel()

    def tunnel_data(self, data: bytes) -> None:
        self.body_bytes_sent += len(data)
        self.channel.last_activity = self.dispatcher.ticker.now
        self.channel.transport.write(data)

    def tunnel_ended(self, clean: bool) -> None:
        if clean:
            self.channel.half_close_client()
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
