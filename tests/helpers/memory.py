"""
A balancer in memory: its clients and servers are plain objects, its time is a
`Clock`, and nothing happens that a test did not ask for.
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
from balancebeam.downstream.tcp.client import ClientRelay
from balancebeam.server.balancer import BalancerService
from balancebeam.upstream.server import Server

# What a producer is paused at, as in Twisted's transports.
BUFFER_SIZE = 64 * 1024


@implementer(ITCPTransport, IPushProducer)
class MemoryTransport:
    """
    The balancer's end of a connection.

    What it writes is kept until `take`. With `stalled` the peer takes nothing:
    beyond `BUFFER_SIZE` octets the producer is paused, as a real transport does.
    """

    def __init__(self, protocol: Any) -> None:
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
        """Whether everything that was written has been taken."""
        return not (self.stalled and self._written)

    def unacked_bytes(self) -> int:
        """How much of it has not been taken."""
        return len(self._written) if self.stalled else 0

    def read_some(self, size: int) -> bytes:
        """A part of what was written."""
        data, self._written = self._written[:size], self._written[size:]
        return data

    def read(self) -> bytes:
        """What was written since the last time."""
        data, self._written = self._written, b""
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        return data

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.closed or self.write_closed or self.closing:
            return
        self._written += data
        if self.stalled and self._producer is not None and len(self._written) > BUFFER_SIZE:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self, *arguments: object) -> None:
        assert self._producer is None, "a registered producer keeps a connection open"
        self.closing = True

    def loseWriteConnection(self) -> None:
        self.write_closed = True
        if not self.stalled:
            self.protocol.writeConnectionLost()

    def abortConnection(self) -> None:
        self.closing = self.aborted = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self._producer is None
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def stopConsuming(self) -> None:
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled

    def getTcpKeepAlive(self) -> bool:
        return self.keep_alive

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1100)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, 40000)


class Peer:
    """Somebody at the other end of a connection of the balancer's."""

    def __init__(self, protocol: Any, stalled: bool = False) -> None:
        self.protocol = protocol
        self.transport = MemoryTransport(protocol)
        self.transport.stalled = stalled
        protocol.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece as an event of its own."""
        for piece in pieces:
            assert self.transport.reading, "sent to who does not read"
            if not self.transport.closing:
                self.protocol.dataReceived(piece)

    def received(self) -> bytes:
        """What has come since the last time."""
        return self.transport.read()

    def half_close(self) -> None:
        """Send no more, but go on reading."""
        self.protocol.readConnectionLost()

    def reset(self) -> None:
        """Be gone, without a word."""
        self._connection_lost(error.ConnectionLost())

    def finish_closing(self) -> bool:
        """Carry out an end that the balancer asked for; whether there was one."""
        if not self.transport.closing or self.transport.closed:
            return False
        reason = error.ConnectionAborted() if self.transport.aborted else error.ConnectionDone()
        self._connection_lost(reason)
        return True

    def _connection_lost(self, reason: Exception) -> None:
        if not self.transport.closed:
            self.transport.closed = True
            self.protocol.connectionLost(Failure(reason))


class MemoryConnector:
    """An attempt of the balancer's to connect to a server."""

    def __init__(self, address: ServerAddress, factory: Any) -> None:
        self.address = address
        self.factory = factory
        self.state = "connecting"

    def accept(self, stalled: bool = False) -> Peer:
        """Be the server, and accept."""
        self.state = "connected"
        return Peer(self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80)), stalled)

    def refuse(self, reason: Exception | None = None) -> None:
        """Be the server, and refuse."""
        self.state = "disconnected"
        why = reason or error.ConnectionRefusedError()
        self.factory.clientConnectionFailed(self, Failure(why))

    def stopConnecting(self) -> None:
        self.refuse(error.UserError())


def flatten_settings(settings: Settings) -> SimpleNamespace:
    """The settings of the first frontend and its pool, side by side."""
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
    A whole balancer over `servers` servers, which are called 10.0.0.1 and so on.

    `connectors` are the attempts to connect to one, in order.
    """

    def __init__(self, servers: int = 1, **settings: Any) -> None:
        self.clock = Clock()
        self.connectors: list[MemoryConnector] = []
        listed = tuple(
            ServerSettings(TcpAddress(f"10.0.0.{number}", 80)) for number in range(1, servers + 1)
        )
        settings.setdefault("servers", listed)
        self._start(single_pool_settings(bind=(), **settings))

    @classmethod
    def from_settings(cls, settings: Settings) -> MemoryBalancer:
        """A balancer with just these settings, which bind nothing."""
        balancer = cls.__new__(cls)
        balancer.clock = Clock()
        balancer.connectors = []
        balancer._start(settings)
        return balancer

    def _start(self, settings: Settings) -> None:
        self.service = BalancerService(settings, self.clock, random.Random(1), self._connect)
        self.service.startService()
        self.peers: list[Peer] = []

    def _connect(self, address: ServerAddress, factory: Any, reactor: Any) -> Any:
        connector = MemoryConnector(address, factory)
        self.connectors.append(connector)
        return connector

    @property
    def servers(self) -> list[Server]:
        """The servers as the balancer knows them."""
        return self.service.server_set.servers

    def client(self, host: str = "192.0.2.1") -> Peer:
        """A new client."""
        channel = self.service.default_frontend.factory.buildProtocol(
            IPv4Address("TCP", host, 40000)
        )
        assert isinstance(channel, (Http1Channel, ClientRelay))
        peer = Peer(channel)
        peer.transport.host = host
        return self._add_peer(peer)

    def accept(self, number: int = -1, stalled: bool = False) -> Peer:
        """Accept the newest (or the given) attempt to connect."""
        return self._add_peer(self.connectors[number].accept(stalled))

    def _add_peer(self, peer: Peer) -> Peer:
        self.peers.append(peer)
        return peer

    def finish_closing(self) -> None:
        """Carry out all ends that the balancer asked for."""
        settled = True
        while settled:
            settled = False
            for peer in self.peers:
                settled |= peer.finish_closing()

    def advance(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def stop(self) -> None:
        """Stop the balancer, and see that it leaves nothing behind."""
        self.service.stopService()
        self.finish_closing()
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()
        assert all(server.in_flight == 0 for server in self.servers), self.servers
        assert not any(server.idle_connections for server in self.servers), self.servers
        assert not self.service.default_frontend.factory.channels
        for pool in self.service.pools.values():
            assert not pool.has_connections, pool.name


GET = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"

DATE_HEADER = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

OK = b"HTTP/1.1 200 OK\r\n" + DATE_HEADER + b"Content-Length: 5\r\n\r\nhello"


def head_and_body(message: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a message's head, and the rest."""
    head, _, body = message.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body
