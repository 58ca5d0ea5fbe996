"""How long a client is waited for: one look at a channel, taken by every sweep."""

from __future__ import annotations

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.http1.channel import (
    AWAITING_RESPONSE,
    CLOSING,
    DISCARDING_BODY,
    LINGERING_CLOSE,
    READING_BODY,
    READING_HEAD,
    TUNNEL,
    Http1Channel,
)
from balancebeam.net.transport import unacked_bytes

# After the last answer the client may still be sending. It is listened to for
# so long (seconds) before the connection closes, so that the reset which
# unread bytes would cause does not destroy the answer (RFC 9112, 9.6).
LINGERING_TIMEOUT = 2.0

# When clients are let go, one that has asked for nothing for so long (seconds)
# is idle. Of others, a request may be on its way.
DRAIN_IDLE_TIMEOUT = 1.0

# A client that has sent the end of its stream may have left or may only have
# said all it had to say; nothing tells the two apart. It gets its answer if
# that begins within so many seconds.
HALF_CLOSE_TIMEOUT = 1.0


def check_timeouts(
    channel: Http1Channel, timeouts: FrontendTimeouts, now: float, interval: float
) -> None:
    """
    End what has lasted too long. `interval` is the time between two sweeps,
    by which `now` may be late where a limit is about as short.
    """
    quiet = now - channel.last_activity
    state = channel.state
    if (
        channel.write_blocked
        or state == CLOSING
        or (state == LINGERING_CLOSE and not channel.output_flushed)
    ):
        _abort_if_stalled(channel, timeouts, now)
    elif state == READING_HEAD:
        _check_idle_timeout(channel, timeouts, now)
    elif state == LINGERING_CLOSE:
        if quiet >= LINGERING_TIMEOUT + interval:
            channel.close()
    elif state == READING_BODY:
        if quiet >= timeouts.idle and channel.reading:
            channel.body_timeout_expired()
    elif state == DISCARDING_BODY:
        if now - (channel.head_started_at or 0.0) >= timeouts.idle:
            channel.close()
    elif state == AWAITING_RESPONSE:
        if (
            channel.half_closed
            and quiet >= HALF_CLOSE_TIMEOUT + interval
            and not channel.downstream_response_started
        ):
            channel.abort()
    elif state == TUNNEL:
        _check_tunnel_timeout(channel, timeouts, quiet)


def _check_idle_timeout(channel: Http1Channel, timeouts: FrontendTimeouts, now: float) -> None:
    """Let a client go that does not ask for anything, or takes too long to."""
    draining, quiet = channel.site.draining, now - channel.last_activity
    if draining and channel.no_input and quiet >= DRAIN_IDLE_TIMEOUT:
        channel.close()
    elif channel.head_started_at is None:
        if quiet >= timeouts.idle:
            channel.close()
    elif now - channel.head_started_at >= timeouts.header:
        channel.header_timeout_expired()


def _check_tunnel_timeout(channel: Http1Channel, timeouts: FrontendTimeouts, quiet: float) -> None:
    """Abort a tunnel through which nothing has passed for too long."""
    # When half of it has ended and the other half is silent, nobody would
    # notice if that were gone too.
    limit = timeouts.tunnel or (timeouts.idle if channel.tunnel_half_closed else 0.0)
    if limit and quiet >= limit:
        channel.abort()


def _abort_if_stalled(channel: Http1Channel, timeouts: FrontendTimeouts, now: float) -> None:
    """Abort if the client has taken nothing for the idle time."""
    left = unacked_bytes(channel.transport)
    if left != channel.last_unacked_bytes:
        channel.last_unacked_bytes = left
        channel.last_activity = now
    elif now - channel.last_activity >= timeouts.idle:
        channel.abort()
