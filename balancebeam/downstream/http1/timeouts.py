"""How long a client is waited for: one look at a channel, taken by every sweep."""

from __future__ import annotations

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.http1.channel import (
    ANSWERING,
    BODY,
    CLOSING,
    DISCARDING,
    HEADS,
    LINGERING,
    TUNNEL,
    HttpChannel,
)
from balancebeam.net.transport import outstanding

# After the last answer the client may still be sending. It is listened to for
# so long (seconds) before the connection closes, so that the reset which
# unread bytes would cause does not destroy the answer (RFC 9112, 9.6).
LINGER = 2.0

# When clients are let go, one that has asked for nothing for so long (seconds)
# is idle. Of others, a request may be on its way.
DRAINED = 1.0

# A client that has sent the end of its stream may have left or may only have
# said all it had to say; nothing tells the two apart. It gets its answer if
# that begins within so many seconds.
HALF_CLOSED = 1.0


def end_if_too_slow(
    channel: HttpChannel, timeouts: FrontendTimeouts, now: float, interval: float
) -> None:
    """
    End what has lasted too long. `interval` is the time between two sweeps,
    by which `now` may be late where a limit is about as short.
    """
    quiet = now - channel.quiet_since
    state = channel.state
    if channel.backlogged or state == CLOSING or (state == LINGERING and not channel.flushed):
        _end_if_stuck(channel, timeouts, now)
    elif state == HEADS:
        _end_if_idle(channel, timeouts, now)
    elif state == LINGERING:
        if quiet >= LINGER + interval:
            channel.lose()
    elif state == BODY:
        if quiet >= timeouts.idle and channel.reading:
            channel.body_too_slow()
    elif state == DISCARDING:
        if now - (channel.head_since or 0.0) >= timeouts.idle:
            channel.lose()
    elif state == ANSWERING:
        if channel.half_closed and quiet >= HALF_CLOSED + interval and not channel.responded:
            channel.abort()
    elif state == TUNNEL:
        _end_if_silent(channel, timeouts, quiet)


def _end_if_idle(channel: HttpChannel, timeouts: FrontendTimeouts, now: float) -> None:
    """Let a client go that does not ask for anything, or takes too long to."""
    draining, quiet = channel.site.draining, now - channel.quiet_since
    if draining and channel.silent and quiet >= DRAINED:
        channel.lose()
    elif channel.head_since is None:
        if quiet >= timeouts.idle:
            channel.lose()
    elif now - channel.head_since >= timeouts.header:
        channel.head_too_slow()


def _end_if_silent(channel: HttpChannel, timeouts: FrontendTimeouts, quiet: float) -> None:
    """Abort a tunnel through which nothing has passed for too long."""
    # When half of it has ended and the other half is silent, nobody would
    # notice if that were gone too.
    limit = timeouts.tunnel or (timeouts.idle if channel.half_over else 0.0)
    if limit and quiet >= limit:
        channel.abort()


def _end_if_stuck(channel: HttpChannel, timeouts: FrontendTimeouts, now: float) -> None:
    """Abort if the client has taken nothing for the idle time."""
    left = outstanding(channel.transport)
    if left != channel.outstanding:
        channel.outstanding = left
        channel.quiet_since = now
    elif now - channel.quiet_since >= timeouts.idle:
        channel.abort()
