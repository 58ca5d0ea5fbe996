"""Timeouts of the streams of HTTP/2 client connections."""

from __future__ import annotations

from balancebeam.core.errors import RequestError
from balancebeam.downstream.http2.exchange import Http2Exchange
from balancebeam.downstream.http2.request_reader import RequestChannel, RequestReader
from balancebeam.protocols.http2.errors import CANCEL

# Seconds after the GOAWAY that announces a drain until the one that names the last stream. RFC
# 9113, 6.8: "at least one round-trip time", so that no request on its way is lost.
FINAL_GOAWAY_DELAY = 1.0

# Seconds without received bytes after which a connection that has sent EOF is closed.
LINGERING_TIMEOUT = 2.0


def check_streams(channel: RequestChannel, reader: RequestReader, now: float) -> None:
    """
    End the streams whose timeout has expired.

    Args:
        channel: The connection, whose transport accepts output.
        reader: Its reader of requests.
        now: The time of the sweep, see `Ticker.add`.
    """
    timeouts = channel.context.timeouts
    for exchange in list(channel.streams.values()):
        quiet = now - exchange.progress_at
        if exchange.tunnel and exchange.downstream_response_started:
            # As in HTTP/1.1, the idle timeout applies to a half-closed tunnel.
            half_closed = exchange.remote_closed or exchange.local_closed
            limit = timeouts.tunnel or (timeouts.idle if half_closed else 0.0)
            if limit and quiet >= limit:
                _cancel(channel, exchange)
        elif quiet < timeouts.idle:
            continue
        elif exchange.queued_bytes:
            # The client gives no window. Others may wait for the memory and the server.
            _cancel(channel, exchange)
        elif exchange.awaiting_request_body and not exchange.finished:
            error = RequestError(408, "request body timeout expired")
            reader.abort_request(channel, exchange, error)


def _cancel(channel: RequestChannel, exchange: Http2Exchange) -> None:
    exchange.client_disconnected()
    channel.reset_stream(exchange, CANCEL)
