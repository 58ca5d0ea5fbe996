"""
HTTP/2 with prior knowledge beside HTTP/1.1, on a frontend without TLS.

A connection begins with the preface of HTTP/2 (RFC 9113, 3.3), or with a request of HTTP/1.1. The
first bytes decide, and the transport is handed over to the channel of that version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from balancebeam.downstream.context import DRAIN_IDLE_TIMEOUT
from balancebeam.downstream.http2.context import Http2Context
from balancebeam.protocols.http2.frames import PREFACE
from balancebeam.proxy.exchange import Exchange

# Builds the channel of a connection: of HTTP/2 if the argument is true, otherwise of HTTP/1.1.
VersionedBuilder = Callable[[bool], Protocol]


class PrefaceDetector(Protocol):
    """
    Reads the beginning of a connection, then replaces itself by a channel.

    Args:
        context: The shared state of the frontend.
        build_channel: Builds the channel.
    """

    transport: Any

    def __init__(self, context: Http2Context, build_channel: VersionedBuilder) -> None:
        self._context = context
        self._build_channel: VersionedBuilder | None = build_channel
        self._started_at = context.ticker.now
        self._buffer = b""

    def connectionMade(self) -> None:
        self._context.channels.add(self)

    def dataReceived(self, data: bytes) -> None:
        build_channel = self._build_channel
        if build_channel is None:
            return
        data = self._buffer + data
        http2 = data.startswith(PREFACE)
        if not http2 and PREFACE.startswith(data):
            self._buffer = data
            return
        self._build_channel = None
        self._context.channels.replace(self)
        channel = build_channel(http2)
        transport = self.transport
        transport.protocol = channel
        channel.makeConnection(transport)
        channel.dataReceived(data)

    # ClientChannel

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        return ()

    def check_timeouts(self, now: float) -> None:
        """Close if the first bytes are late, or if nothing was received while draining."""
        elapsed = now - self._started_at
        draining = self._context.draining and not self._buffer and elapsed >= DRAIN_IDLE_TIMEOUT
        if draining or elapsed >= self._context.timeouts.header:
            self._build_channel = None
            self.transport.loseConnection()

    def drain(self) -> None:
        """Do nothing: a sweep closes idle connections."""

    def update_trust(self) -> None:
        """Do nothing: the channel is built later."""

    def shutdown(self) -> None:
        self._build_channel = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._build_channel = None
        self._context.channels.discard(self)
