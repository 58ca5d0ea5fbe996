"""Conformance cases in memory: a connection to a balancer, and its HTTP/1.1 server."""

from __future__ import annotations

import h11

from tests.helpers.memory import MemoryBalancer, Peer

CONTENT = b"hello from the server"


class Server:
    """One connection of the balancer to a server that h11 reads, and that answers with 200."""

    def __init__(self, peer: Peer) -> None:
        """Serve the balancer's connection to `peer`."""
        self._peer = peer
        self._connection = h11.Connection(h11.SERVER)
        self._method = b""

    def pump(self) -> bool:
        """
        Answer the complete requests.

        Returns:
            Whether anything was received.

        Raises:
            h11.RemoteProtocolError: the balancer forwarded an invalid request.
        """
        received = self._peer.received()
        if not received:
            return False
        self._connection.receive_data(received)
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Request):
                self._method = event.method
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return True

    def _answer(self) -> None:
        size = str(len(CONTENT)).encode()
        head = h11.Response(status_code=200, headers=[(b"Content-Length", size)])
        content = () if self._method == b"HEAD" else (h11.Data(data=CONTENT),)
        parts = (head, *content, h11.EndOfMessage())
        response = b"".join(self._connection.send(part) or b"" for part in parts)
        self._connection.start_next_cycle()
        if not self._peer.transport.closing:
            self._peer.send(response)


class MemoryWire:
    """
    A client's connection to a balancer in memory.

    Requests are answered when the client reads: everything that was sent before is then
    handled, so a case has the same course each time.
    """

    def __init__(self, balancer: MemoryBalancer, piece: int) -> None:
        """
        Connect a client.

        Args:
            balancer: the balancer; its default frontend must accept HTTP/2.
            piece: number of bytes that the balancer receives at a time.
        """
        self._balancer = balancer
        self._piece = piece
        self._client = balancer.client()
        self._servers: list[Server] = []
        self._unsent = b""

    def send(self, data: bytes) -> None:
        """Send bytes; what the balancer does not read is kept, and lost if it closes."""
        self._unsent += data
        transport = self._client.transport
        while self._unsent and transport.reading and not transport.closing:
            data, self._unsent = self._unsent[: self._piece], self._unsent[self._piece :]
            self._client.send(data)

    def receive(self) -> bytes | None:
        """Return received bytes, `b""` after the end of the connection, `None` for silence."""
        while self._pump():
            pass
        received = self._client.received()
        if received:
            return received
        transport = self._client.transport
        return b"" if transport.closing or transport.write_closed else None

    def _pump(self) -> bool:
        """Handle what is under way once; return whether there was anything."""
        self._balancer.clock.advance(0)
        self.send(b"")
        connectors = self._balancer.connectors
        accepted = len(self._servers) < len(connectors)
        if accepted:
            self._servers.append(Server(self._balancer.accept(len(self._servers))))
        answered = [server.pump() for server in self._servers]
        return accepted or any(answered)
