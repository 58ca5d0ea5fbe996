"""Timeouts of HTTP/2 connections to servers, and of their streams."""

from __future__ import annotations

from balancebeam.core.failures import FailureKind
from balancebeam.upstream.http2_connection import Http2Connection


def check_connection(
    connection: Http2Connection, now: float, limit: float, idle_timeout: float
) -> None:
    """
    Apply all timeouts of a connection.

    Args:
        connection: The connection.
        now: The time of the sweep, see `Ticker.add`.
        limit: Seconds without progress after which a stream fails.
        idle_timeout: Seconds without streams after which the connection is closed.
    """
    quiet = now - connection.last_received
    if connection.closing:
        if quiet >= limit:
            connection.transport.abortConnection()
        return
    _check_streams(connection, now, limit)
    _check_liveness(connection, now, limit)
    if not connection.streams and quiet >= idle_timeout and not connection.closing:
        connection.close_idle()


def _check_streams(connection: Http2Connection, now: float, limit: float) -> None:
    """Fail streams without progress, unless the client has still to send or to read."""
    output_progress = connection.output.blocked and _write_progressed(connection)
    for stream in list(connection.streams.values()):
        exchange = stream.exchange
        if exchange is None:
            continue
        if stream.queued_bytes and output_progress:
            stream.last_activity = now
        if stream.paused:
            if exchange.client_stalled(now):
                connection.cancel(stream, FailureKind.CLIENT_STALLED)
        elif (
            now - stream.last_activity >= limit
            and not (stream.tunnel and stream.started)
            and not exchange.awaiting_request_body
        ):
            kind = FailureKind.STALLED if stream.begun else FailureKind.TIMEOUT
            connection.cancel(stream, kind)


def _check_liveness(connection: Http2Connection, now: float, limit: float) -> None:
    """
    Send PING after half of the timeout without any bytes, and close after the rest of it.

    Not more often, because servers of gRPC close connections for too many PINGs.
    """
    if connection.closing:
        return
    if connection.ping_sent_at is None:
        if connection.streams and now - connection.last_received >= limit / 2:
            connection.ping()
    elif now - connection.ping_sent_at >= limit / 2:
        connection.fail(FailureKind.TIMEOUT, "no response to PING")


def _write_progressed(connection: Http2Connection) -> bool:
    """Whether the server has acknowledged bytes since the previous call."""
    outstanding = connection.transport.unacked_bytes()
    progressed = outstanding != connection.unacked_bytes
    connection.unacked_bytes = outstanding
    return progressed
