"""What all HTTP/2 connections of one pool share, and the limits that they announce."""

from __future__ import annotations

import typing
from typing import Any

from balancebeam.protocols.http1.response_head import (
    MAX_RESPONSE_FIELDS,
    MAX_RESPONSE_HEAD,
    ResponseHeadParser,
)
from balancebeam.protocols.http2.frames import (
    DEFAULT_WINDOW_SIZE,
    PREFACE,
    encode_window_update,
)
from balancebeam.protocols.http2.hpack import HeaderLimits
from balancebeam.protocols.http2.request_block import RequestEncoder
from balancebeam.protocols.http2.response_fields import ResponseInterpreter, ResponseSection
from balancebeam.protocols.http2.settings import (
    ENABLE_PUSH,
    INITIAL_WINDOW_SIZE,
    MAX_HEADER_LIST_SIZE,
    encode_settings,
)
from balancebeam.protocols.http2.table_state import SharedTables
from balancebeam.upstream.connect_attempt import PendingHandshake

# Streams of one connection, at most: as many as a server usually allows. More than that fill a
# connection better than a further one would, but all of them end when it is lost.
MAX_STREAMS = 128

HEADER_LIMITS = HeaderLimits(MAX_RESPONSE_HEAD, MAX_RESPONSE_FIELDS)

# The receive window of the connection: 16 streams can each fill their own before the first
# update arrives. It is opened again on receipt, so its size bounds no memory.
CONNECTION_WINDOW = 1024 * 1024

# Bytes of received content after which the window of the connection is opened again.
CONNECTION_THRESHOLD = CONNECTION_WINDOW // 2

# What a connection begins with.
CLIENT_PREFACE = b"".join(
    (
        PREFACE,
        encode_settings(
            (
                (ENABLE_PUSH, 0),
                (INITIAL_WINDOW_SIZE, DEFAULT_WINDOW_SIZE),
                (MAX_HEADER_LIST_SIZE, MAX_RESPONSE_HEAD),
            )
        ),
        encode_window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW_SIZE),
    )
)


class Http2HandshakeError(Exception):
    """A connection was closed before the server has sent SETTINGS; the text has the reason."""


class PendingAttempt(typing.Protocol):
    """The attempt that waits for the SETTINGS of the server."""

    def encode_proxy_header(self) -> bytes:
        """The PROXY header, which precedes everything else; empty without it."""

    def preface_sent(self, connection: PendingHandshake) -> None:
        """Call `connection.abort_handshake` if the connect timeout expires."""

    def connected(self, connection: Any) -> None:
        """The connection can be used."""

    def handshake_failed(self, error: Exception) -> None:
        """The connection cannot be used, and is closed."""


class Http2Shared:
    """
    The memos of a pool.

    Attributes:
        tables: The header tables of all connections.
        encoder: Encodes the heads of requests without TLS.
        secure_encoder: Encodes the heads of requests over TLS.
    """

    def __init__(self, parser: ResponseHeadParser) -> None:
        interpreter = ResponseInterpreter(parser)
        self.tables: SharedTables[ResponseSection] = SharedTables(interpreter.interpret)
        self.encoder = RequestEncoder(secure=False)
        self.secure_encoder = RequestEncoder(secure=True)
