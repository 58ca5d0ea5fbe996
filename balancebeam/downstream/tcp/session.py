"""
A TCP session: one client connection relayed to one server.

A session is an exchange like an HTTP request: it is admitted, a server is selected, another one
if that cannot be reached, and it is accounted for at its end. Once the server is connected, the
two relays pass bytes to each other without the session.
"""

from __future__ import annotations

from balancebeam.downstream.context import FrontendContext
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.relay import Relay
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import Exchange, Fields
from balancebeam.proxy.timeline import CLIENT, DRAINING, SERVER, TIMEOUT
from balancebeam.upstream.tcp_pool import ServerRelay

# How a session ends, by its close reason; all others are complete.
_OUTCOMES = {
    "client reset": CLIENT,
    "server reset": SERVER,
    "idle timeout": TIMEOUT,
    "shutdown": DRAINING,
}


class TcpSession(Exchange):
    """
    One TCP connection and its server.

    Attributes:
        client: IP address of the client.
        client_relay: The client's side.
        proxy_info: Addresses from a PROXY protocol header, if there was one.
        started_at: When the client connected, in seconds since the epoch.
        server_name: The connected server; empty before.
        close_reason: Which side closed first and how, or why no server was connected.
    """

    method = b""
    close_reason = ""

    def __init__(
        self,
        client_relay: Relay,
        context: FrontendContext,
        client: str,
        proxy_info: ProxyInfo | None,
    ) -> None:
        self.dispatcher = context.default_route.dispatcher
        self.observer = context.observer
        self.client = client
        self.client_relay = client_relay
        self.started_at = context.ticker.wall_time()
        self.server_name = ""
        self._proxy_info = proxy_info
        self._server_relay: ServerRelay | None = None
        # Bytes relayed at the last sweep that found progress, and its time on the ticker.
        self._last_byte_count = -1
        self._last_activity = 0.0

    @property
    def bytes_from_client(self) -> int:
        """Bytes received from the client."""
        return self.client_relay.bytes_received

    @property
    def bytes_from_server(self) -> int:
        """Bytes received from the server."""
        return self._server_relay.bytes_received if self._server_relay is not None else 0

    @property
    def host(self) -> bytes | None:
        return None

    @property
    def target(self) -> bytes:
        return b""

    def field_values(self, name: bytes) -> list[bytes]:
        return []

    @property
    def proxy_info(self) -> ProxyInfo | None:
        return self._proxy_info

    def client_transport(self) -> StreamTransport:
        return self.client_relay.transport

    def rewind(self) -> bool:
        """Return true: nothing is sent before a server has accepted the connection."""
        return True

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        """Close without a response: the application protocol is unknown."""
        self.status = status
        self._finish(text)
        self.client_relay.close()

    # The server's side, called by the pool and by `ServerRelay`

    def server_connected(self, server_relay: ServerRelay) -> None:
        """Connect the two relays and send what the client has sent so far."""
        self._server_relay = server_relay
        self.server_name = server_relay.server.name
        self.downstream_response_started = True
        self.dispatcher.response_started(self)
        client_relay = self.client_relay
        client_relay.connect_peer(server_relay)
        server_relay.notify_first_read(self._first_byte_received)
        self.resume_upload()
        if self.pending_body:
            pending_body, self.pending_body = self.pending_body, ()
            server_relay.transport.write(b"".join(pending_body))
        if client_relay.read_closed:
            server_relay.half_close()

    def _first_byte_received(self) -> None:
        self.dispatcher.first_byte_received(self)

    def server_disconnected(self, clean: bool) -> None:
        """The server's connection was lost; `clean` unless it was reset."""
        if self.finished:
            return
        server_relay = self._server_relay
        sent_all = clean or (server_relay is not None and server_relay.read_closed)
        self._finish("server closed" if sent_all else "server reset")
        if sent_all:
            # Bytes from the server may still be on their way to the client.
            self.client_relay.close()
        else:
            self.client_relay.abort()

    def half_closed(self, reason: str) -> None:
        """Record `reason` as the close reason: the side that sends EOF first ends the session."""
        self.close_reason = self.close_reason or reason

    # The client's side, called by `ClientRelay`

    def client_connection_lost(self, clean: bool) -> None:
        """The client's connection was lost; `clean` unless it was reset."""
        if self.finished:
            return
        sent_all = clean or self.client_relay.read_closed
        reason = "client closed" if sent_all else "client reset"
        server_relay = self._server_relay
        if server_relay is None:
            self.close_reason = reason
            self.client_disconnected()
            return
        self._finish(reason)
        if sent_all:
            server_relay.close()
        else:
            server_relay.abort()

    def check_idle_timeout(self, now: float, limit: float) -> None:
        """Abort the session if nothing was relayed for `limit` seconds."""
        byte_count = self.bytes_from_client + self.bytes_from_server
        if byte_count != self._last_byte_count:
            self._last_byte_count = byte_count
            self._last_activity = now
        elif now - self._last_activity >= limit:
            self._abort("idle timeout")

    def shutdown(self) -> None:
        """Abort the session, without waiting for unsent bytes."""
        self._abort("shutdown")
        self.client_relay.abort()
        if self._server_relay is not None:
            self._server_relay.abort()

    def _abort(self, reason: str) -> None:
        if self.finished:
            return
        if self._server_relay is None:
            self.close_reason = reason
            self.outcome = self.outcome or _OUTCOMES.get(reason, "")
            self.client_disconnected()
        else:
            self._finish(reason)
            self._server_relay.abort()
        self.client_relay.abort()

    def _finish(self, reason: str) -> None:
        self.close_reason = self.close_reason or reason
        self.outcome = self.outcome or _OUTCOMES.get(reason, "")
        self.finished = True
        self.dispatcher.request_finished(self)

    def pause_upload(self) -> None:
        if not self.upload_paused:
            self.upload_paused = True
            self.client_relay.transport.pauseProducing()

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            if not self.client_relay.read_closed:
                self.client_relay.transport.resumeProducing()
