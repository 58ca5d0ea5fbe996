"""
In-memory test harness: a whole balancer without sockets or real time.

Clients and servers are `Peer` objects, connections are `MemoryTransport` objects and time
is a Twisted `Clock`, so a test alone decides when anything happens.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from attrs import fields
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.api import Timeouts, single_pool_settings
from balancebeam.core.addresses import ServerAddress, TcpAddress
from balancebeam.core.settings import FrontendSettings, PoolSettings, ServerSettings, Settings
from balancebeam.downstream.http1.channel import Http1Channel
from balancebeam.downstream.http2.channel import Http2Channel
from balancebeam.downstream.http2.preface import PrefaceDetector
from balancebeam.downstream.tcp.client import ClientRelay
from balancebeam.server.balancer import BalancerService
from balancebeam.tls.interfaces import TlsInfo
from balancebeam.upstream.server import Server

# Bytes written and not read at which a producer is paused, as in Twisted's transports.
BUFFER_SIZE = 64 * 1024


@implementer(ITCPTransport, IPushProducer)
class MemoryTransport:
    """
    The balancer's end of an in-memory connection.

    Attributes:
        protocol: the balancer's protocol of this connection.
        host: IP address of the peer.
        stalled: the peer does not read. Written bytes then count as unacknowledged, and
            beyond `BUFFER_SIZE` bytes the producer is paused, as by a real transport.
        reading: False while the balancer has paused reading.
        aborted: the balancer has aborted the connection.
        closing: the balancer has closed or aborted the connection.
        disconnecting: always False; protocols of Twisted read it.
        closed: the protocol has been notified of the end of the connection.
        write_closed: the balancer has closed its direction (half-close).
        no_delay: TCP_NODELAY is set.
        keep_alive: SO_KEEPALIVE is set.
        bytes_received: the bytes that the peer has sent.
        bytes_sent: the bytes that were written.
    """

    eof_truncated = False
    bytes_received = 0
    bytes_sent = 0

    def __init__(self, protocol: Any) -> None:
        """Create the transport of `protocol`; the caller connects them."""
        self.protocol = protocol
        self.host = "127.0.0.1"
        self.stalled = False
        self.reading = True
        self.aborted = False
        self.closing = False
        self.disconnecting = False
        self.closed = False
        self.write_closed = False
        self.no_delay = False
        self.keep_alive = False
        self._written = b""
        self._producer: Any = None
        self._producer_paused = False

    @property
    def nothing_buffered(self) -> bool:
        """Whether the peer has received everything that was written."""
        return not (self.stalled and self._written)

    def unacked_bytes(self) -> int:
        """Return the number of bytes that a stalled peer has not received yet."""
        return len(self._written) if self.stalled else 0

    def read_some(self, size: int) -> bytes:
        """Return at most `size` written bytes, without resuming the producer."""
        data, self._written = self._written[:size], self._written[size:]
        return data

    def read(self) -> bytes:
        """Return everything written since the last read, and resume a paused producer."""
        data, self._written = self._written, b""
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        return data

    def write(self, data: bytes) -> None:
        """Buffer `data`; pause the producer of a stalled connection that has too much."""
        assert isinstance(data, bytes)
        if self.closed or self.write_closed or self.closing:
            return
        self.bytes_sent += len(data)
        self._written += data
        if self.stalled and self._producer is not None and len(self._written) > BUFFER_SIZE:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:
        """Write several pieces as one."""
        self.write(b"".join(iovec))

    def loseConnection(self, *arguments: object) -> None:
        """Close the connection; `Peer.finish_closing` completes this."""
        assert self._producer is None, "a registered producer keeps a connection open"
        self.closing = True

    def loseWriteConnection(self) -> None:
        """Half-close the connection."""
        self.write_closed = True
        if not self.stalled:
            self.protocol.writeConnectionLost()

    def abortConnection(self) -> None:
        """Reset the connection; `Peer.finish_closing` completes this."""
        self.closing = self.aborted = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register a push producer."""
        assert streaming
        assert self._producer is None
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Unregister the producer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop delivering bytes to the protocol."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Deliver bytes to the protocol again."""
        self.reading = True

    def stopProducing(self) -> None:
        """Close the connection, as IPushProducer demands."""
        self.loseConnection()

    def stopConsuming(self) -> None:
        """Close the connection, as Twisted's own transports do."""
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Record TCP_NODELAY."""
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        """Return whether TCP_NODELAY is set."""
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Record SO_KEEPALIVE."""
        self.keep_alive = enabled

    def getTcpKeepAlive(self) -> bool:
        """Return whether SO_KEEPALIVE is set."""
        return self.keep_alive

    def getHost(self) -> IPv4Address:
        """Return the balancer's address."""
        return IPv4Address("TCP", "127.0.0.1", 1100)

    def getPeer(self) -> IPv4Address:
        """Return the peer's address."""
        return IPv4Address("TCP", self.host, 40000)


class Peer:
    """A client or server at the other end of one of the balancer's connections."""

    def __init__(self, protocol: Any, stalled: bool = False) -> None:
        """Connect `protocol` to a new transport; a `stalled` peer does not read."""
        self.transport = MemoryTransport(protocol)
        self.transport.stalled = stalled
        protocol.makeConnection(self.transport)

    @property
    def protocol(self) -> Any:
        """The balancer's protocol; a TLS handshake replaces it."""
        return self.transport.protocol

    def send(self, *pieces: bytes) -> None:
        """Send bytes to the balancer, each piece in a separate `dataReceived` call."""
        for piece in pieces:
            assert self.transport.reading, "sent while the balancer has paused reading"
            if not self.transport.closing:
                self.transport.bytes_received += len(piece)
                self.protocol.dataReceived(piece)

    def received(self) -> bytes:
        """Return the bytes received since the last call."""
        return self.transport.read()

    def half_close(self) -> None:
        """Close the sending direction (FIN), and continue to receive."""
        self.protocol.readConnectionLost()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self._connection_lost(error.ConnectionLost())

    def finish_closing(self) -> bool:
        """Notify the protocol if the balancer has closed the connection; return whether it had."""
        if not self.transport.closing or self.transport.closed:
            return False
        reason = error.ConnectionAborted() if self.transport.aborted else error.ConnectionDone()
        self._connection_lost(reason)
        return True

    def _connection_lost(self, reason: Exception) -> None:
        """Notify the protocol of the end of the connection, once."""
        if not self.transport.closed:
            self.transport.closed = True
            self.protocol.connectionLost(Failure(reason))


class MemoryConnector:
    """
    One attempt of the balancer to connect to a server; the test accepts or refuses it.

    Attributes:
        address: the server's address.
        factory: the balancer's client factory.
        state: "connecting", "connected" or "disconnected", as in Twisted's connectors.
    """

    def __init__(self, address: ServerAddress, factory: Any) -> None:
        """Create a pending attempt."""
        self.address = address
        self.factory = factory
        self.state = "connecting"

    def accept(self, stalled: bool = False) -> Peer:
        """Accept the connection; return the server's end."""
        self.state = "connected"
        return Peer(self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80)), stalled)

    def refuse(self, reason: Exception | None = None) -> None:
        """Fail the attempt: by default, the connection is refused."""
        self.state = "disconnected"
        failure = Failure(reason or error.ConnectionRefusedError())
        self.factory.clientConnectionFailed(self, failure)

    def stopConnecting(self) -> None:
        """Cancel the attempt, as the balancer does when a timeout expires."""
        self.refuse(error.UserError())


def flatten_settings(settings: Settings) -> SimpleNamespace:
    """Return process settings, first frontend and first pool in one namespace."""
    frontend, pool = settings.frontends[0], settings.pools[0]
    return SimpleNamespace(
        **{name.name: getattr(settings, name.name) for name in fields(Settings)},
        **{name.name: getattr(pool, name.name) for name in fields(PoolSettings)}
        | {name.name: getattr(frontend, name.name) for name in fields(FrontendSettings)}
        | {
            "timeouts": Timeouts(
                pool.timeouts.connect,
                pool.timeouts.upstream,
                frontend.timeouts.header,
                frontend.timeouts.idle,
                frontend.timeouts.tunnel,
            )
        },
    )


class MemoryBalancer:
    """
    A whole balancer in memory, with `servers` servers at 10.0.0.1:80, 10.0.0.2:80 and so on.

    Attributes:
        clock: the clock that drives all its timers.
        service: the `BalancerService`.
        connectors: all attempts to connect to servers, in order.
        peers: all clients and servers that were connected.
    """

    def __init__(self, servers: int = 1, **settings: Any) -> None:
        """Start a balancer with one pool; `settings` as for `single_pool_settings`."""
        self.clock = Clock()
        self.connectors: list[MemoryConnector] = []
        numbered = tuple(
            ServerSettings(TcpAddress(f"10.0.0.{number}", 80)) for number in range(1, servers + 1)
        )
        settings.setdefault("servers", numbered)
        self._start(single_pool_settings(bind=(), **settings))

    @classmethod
    def from_settings(cls, settings: Settings) -> MemoryBalancer:
        """Start a balancer with exactly these settings, which must bind no address."""
        balancer = cls.__new__(cls)
        balancer.clock = Clock()
        balancer.connectors = []
        balancer._start(settings)
        return balancer

    def _start(self, settings: Settings) -> None:
        """Start the service tree with seeded random numbers and in-memory connections."""
        self.service = BalancerService(settings, self.clock, random.Random(1), self._connect)
        self.service.startService()
        self.peers: list[Peer] = []

    def _connect(self, address: ServerAddress, factory: Any, reactor: Any) -> Any:
        """Record an attempt to connect; stands in for the real connect function."""
        connector = MemoryConnector(address, factory)
        self.connectors.append(connector)
        return connector

    @property
    def servers(self) -> list[Server]:
        """The balancer's servers, in order."""
        return self.service.server_set.servers

    def client(
        self, host: str = "192.0.2.1", tls: TlsInfo | None = None, frontend: str | None = None
    ) -> Peer:
        """
        Connect a client.

        Args:
            host: its IP address.
            tls: the result of its TLS handshake; `None` without TLS.
            frontend: the name of the frontend; by default the default frontend.
        """
        service = self.service
        target = service.default_frontend if frontend is None else service.frontends[frontend]
        channel = target.factory.build_channel(host, tls=tls)
        assert isinstance(channel, (Http1Channel, Http2Channel, PrefaceDetector, ClientRelay))
        peer = Peer(channel)
        peer.transport.host = host
        return self._add_peer(peer)

    def accept(self, number: int = -1, stalled: bool = False) -> Peer:
        """Accept an attempt to connect, by default the newest; return the server's end."""
        return self._add_peer(self.connectors[number].accept(stalled))

    def _add_peer(self, peer: Peer) -> Peer:
        """Record a peer for `finish_closing`."""
        self.peers.append(peer)
        return peer

    def finish_closing(self) -> None:
        """Complete the closes that the balancer has started, and the ones that follow from them."""
        progress = True
        while progress:
            progress = False
            for peer in self.peers:
                progress |= peer.finish_closing()

    def measure_with_clock(self) -> None:
        """Take the times of exchanges from `clock`, plus 1 s because 0 means no time."""
        for pool in self.service.pools.values():
            dispatcher = pool.dispatcher
            dispatcher.perf_counter = dispatcher.queue.perf_counter = self._perf_counter

    def _perf_counter(self) -> float:
        return self.clock.seconds() + 1.0

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`, in steps of 0.1 s."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def stop(self) -> None:
        """Stop the balancer, and assert that no timer, connection or request is left."""
        self.service.stopService()
        self.finish_closing()
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()
        pools = self.service.pools.values()
        servers = [server for pool in pools for server in pool.server_set.servers]
        assert all(server.in_flight == 0 for server in servers), servers
        assert not any(server.idle_connections for server in servers), servers
        for frontend in self.service.frontends.values():
            assert not frontend.factory.channels, frontend.name
        for pool in self.service.pools.values():
            assert not pool.has_connections, pool.name


GET = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"

DATE_HEADER = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

OK = b"HTTP/1.1 200 OK\r\n" + DATE_HEADER + b"Content-Length: 5\r\n\r\nhello"


def head_and_body(message: bytes) -> tuple[list[bytes], bytes]:
    """Split a message into the lines of its head and its body."""
    head, _, body = message.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body
