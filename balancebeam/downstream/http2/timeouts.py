"""Timeouts of the streams of HTTP/2 client connections."""

from __future__ import annotations

from balancebeam.core.errors import RequestError
from balancebeam.downstream.http2.error_responses import abort_request
from balancebeam.downstream.http2.exchange import Http2Exchange
from balancebeam.downstream.http2.interfaces import RequestChannel
from balancebeam.protocols.http2.errors import CANCEL, NO_ERROR

# Seconds after the GOAWAY that announces a drain until the one that names the last stream. RFC
# 9113, 6.8: "at least one round-trip time", so that no request on its way is lost.
FINAL_GOAWAY_DELAY = 1.0

# Seconds after an early response until a request whose body continues is cancelled. RFC 9113, 8.1:
# the server "MAY request that the client abort transmission of a request without error by sending
# a RST_STREAM with an error code of NO_ERROR after sending a complete response". A RST_STREAM
# together with the response makes curl 7.88 drop the response. Until then, the body is discarded.
EARLY_RESPONSE_DELAY = 1.0

# Seconds without received bytes after which a connection that has sent EOF is closed.
LINGERING_TIMEOUT = 2.0


def check_streams(channel: RequestChannel, now: float) -> None:
    """
    End the streams whose timeout has expired.

    Args:
        channel: The connection, whose transport accepts output.
        now: The time of the sweep, see `Ticker.add`.
    """
    timeouts = channel.context.timeouts
    for exchange in list(channel.streams.values()):
        quiet = now - exchange.progress_at
        if exchange.local_closed and exchange.finished:
            if quiet >= EARLY_RESPONSE_DELAY:
                channel.reset_stream(exchange, NO_ERROR)
        elif exchange.tunnel and exchange.downstream_response_started:
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
            abort_request(channel, exchange, error)


def _cancel(channel: RequestChannel, exchange: Http2Exchange) -> None:
    exchange.client_disconnected()
    channel.reset_stream(exchange, CANCEL)
