"""
Timeouts of HTTP/1.1 client connections.

`find_expiry` decides, without side effects, whether a timeout has expired. The channel calls it
once per sweep and carries the result out.
"""

from __future__ import annotations

import enum
from typing import Protocol

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.context import DRAIN_IDLE_TIMEOUT
from balancebeam.downstream.http1.channel_state import (
    AWAITING_RESPONSE,
    CLOSING,
    DISCARDING_BODY,
    LINGERING_CLOSE,
    READING_BODY,
    READING_HEAD,
    TUNNEL,
    ChannelState,
)

# Seconds without received bytes after which a lingering connection is closed. Until then the
# client may still be sending, and closing with unread bytes would send a reset, which can
# destroy the response before the client has read it (RFC 9112, 9.6).
LINGERING_TIMEOUT = 2.0

# Seconds within which the response must start after the client has sent EOF. A client that has
# only finished sending cannot be distinguished from one that has disconnected.
HALF_CLOSE_TIMEOUT = 1.0


class Expiry(enum.Enum):
    """
    What an expired timeout calls for.

    Attributes:
        CLOSE: Close the connection.
        ABORT: Reset the connection.
        HEADER_TIMEOUT: Reject the request: its head is incomplete.
        BODY_TIMEOUT: Reject the request: its body is incomplete.
    """

    CLOSE = enum.auto()
    ABORT = enum.auto()
    HEADER_TIMEOUT = enum.auto()
    BODY_TIMEOUT = enum.auto()


class ChannelActivity(Protocol):
    """The properties of a connection that timeouts depend on. Times are on the ticker."""

    @property
    def state(self) -> ChannelState:
        """The state of the connection."""

    @property
    def last_activity(self) -> float:
        """When bytes were last received, or the client last acknowledged bytes."""

    @property
    def head_started_at(self) -> float | None:
        """
        When reading of the current head, or discarding of a body, began.

        `None` between requests.
        """

    @property
    def reading(self) -> bool:
        """Whether reading is not paused."""

    @property
    def no_input(self) -> bool:
        """Whether nothing has been received of the next request."""

    @property
    def half_closed(self) -> bool:
        """Whether the client has sent EOF."""

    @property
    def tunnel_half_closed(self) -> bool:
        """Whether one side of the tunnel has sent EOF."""

    @property
    def write_blocked(self) -> bool:
        """Whether the client reads too slowly, so that writing is paused."""

    @property
    def output_flushed(self) -> bool:
        """Whether everything has been written when lingering."""

    @property
    def downstream_response_started(self) -> bool:
        """Whether the response to the request in progress has started."""


def awaits_client_read(channel: ChannelActivity) -> bool:
    """Whether the connection can only proceed when the client reads."""
    return (
        channel.write_blocked
        or channel.state is CLOSING
        or (channel.state is LINGERING_CLOSE and not channel.output_flushed)
    )


def find_expiry(
    channel: ChannelActivity,
    timeouts: FrontendTimeouts,
    now: float,
    draining: bool,
) -> Expiry | None:
    """
    The consequence of an expired timeout; `None` if none has expired.

    Args:
        channel: The connection to check.
        timeouts: The limits in seconds.
        now: The time of the sweep, see `Ticker.add`.
        draining: Whether idle connections are closed soon.
    """
    quiet = now - channel.last_activity
    state = channel.state
    expiry = None
    if awaits_client_read(channel):
        if quiet >= timeouts.idle:
            expiry = Expiry.ABORT
    elif state is READING_HEAD:
        expiry = _find_head_expiry(channel, timeouts, now, draining)
    elif state is READING_BODY:
        if quiet >= timeouts.idle and channel.reading:
            expiry = Expiry.BODY_TIMEOUT
    elif state is DISCARDING_BODY:
        # Counted from the response: the body must end soon, however steadily it arrives.
        if now - (channel.head_started_at or 0.0) >= timeouts.idle:
            expiry = Expiry.CLOSE
    elif state is AWAITING_RESPONSE:
        expired = quiet >= HALF_CLOSE_TIMEOUT
        if channel.half_closed and expired and not channel.downstream_response_started:
            expiry = Expiry.ABORT
    elif state is TUNNEL:
        # Without a tunnel timeout, the idle timeout applies to a half-closed tunnel: nothing
        # else detects that the remaining side is gone.
        limit = timeouts.tunnel or (timeouts.idle if channel.tunnel_half_closed else 0.0)
        if limit and quiet >= limit:
            expiry = Expiry.ABORT
    elif state is LINGERING_CLOSE and quiet >= LINGERING_TIMEOUT:
        expiry = Expiry.CLOSE
    return expiry


def _find_head_expiry(
    channel: ChannelActivity, timeouts: FrontendTimeouts, now: float, draining: bool
) -> Expiry | None:
    """The timeouts between requests and within a request head."""
    quiet = now - channel.last_activity
    if draining and channel.no_input and quiet >= DRAIN_IDLE_TIMEOUT:
        return Expiry.CLOSE
    if channel.head_started_at is None:
        return Expiry.CLOSE if quiet >= timeouts.idle else None
    return Expiry.HEADER_TIMEOUT if now - channel.head_started_at >= timeouts.header else None
