"""An extended CONNECT request (RFC 8441) on an HTTP/2 stream, forwarded as an upgrade."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.downstream.http2.exchange import Http2Exchange, StreamChannel
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Pipeline

# RFC 6455, 1.3.
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Http2TunnelExchange(Http2Exchange):
    """
    A stream that becomes a tunnel when the server accepts the WebSocket.

    Args:
        key: The Sec-WebSocket-Key that was sent to the server; see `Http2Exchange` for the others.
    """

    tunnel = True

    def __init__(
        self,
        key: bytes,
        channel: StreamChannel,
        stream_id: int,
        dispatcher: Pipeline[Exchange],
        head: RequestHead,
        upstream_head: bytes,
    ) -> None:
        super().__init__(channel, stream_id, dispatcher, head, upstream_head)
        self._key = key

    def upgrade_error(self, head: ResponseHead) -> str:
        # The client has sent no key, so that the proxy has to check the answer to its own.
        accept = b64encode(sha1(self._key + _WEBSOCKET_GUID).digest())
        if field_values(head.forward_bytes, b"sec-websocket-accept") != [accept]:
            return "101 with a wrong Sec-WebSocket-Accept"
        return super().upgrade_error(head)

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        if not self._refuse(head):
            super().response_received(head, body)

    def response_started(self, head: ResponseHead, length: int) -> None:
        if not self._refuse(head):
            super().response_started(head, length)

    def _refuse(self, head: ResponseHead) -> bool:
        """
        Respond with 502 if the client would take the response for an accepted WebSocket.

        RFC 9110, 9.3.6: "Any 2xx (Successful) response indicates that the sender [...] will switch
        to tunnel mode"; in HTTP/1.1 only 101 does.
        """
        if head.status >= 300:
            return False
        server = self.server
        failure = UpstreamFailure(
            FailureKind.MALFORMED,
            f"{head.status} instead of 101",
            server=server.name if server is not None else "the server",
        )
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        self.dispatcher.response_aborted(self, failure)
        self.local_reply(failure.status, failure.public_message)
        return True
