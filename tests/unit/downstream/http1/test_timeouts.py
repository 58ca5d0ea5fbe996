"""Timeouts of HTTP/1.1 client connections, without a connection."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.context import DRAIN_IDLE_TIMEOUT
from balancebeam.downstream.http1.channel_state import ChannelState
from balancebeam.downstream.http1.timeouts import (
    HALF_CLOSE_TIMEOUT,
    LINGERING_TIMEOUT,
    Expiry,
    awaits_client_read,
    find_expiry,
)

# Seconds between two sweeps.


@frozen
class Activity:
    """A connection on which nothing has happened since 0 on the ticker."""

    state: ChannelState = ChannelState.READING_HEAD
    last_activity: float = 0.0
    head_started_at: float | None = None
    reading: bool = True
    no_input: bool = True
    half_closed: bool = False
    tunnel_half_closed: bool = False
    write_blocked: bool = False
    output_flushed: bool = False
    downstream_response_started: bool = False


class TimeoutTests(SynchronousTestCase):
    """Which timeout applies in which state, and its consequence."""

    timeouts = FrontendTimeouts(header=10.0, idle=60.0, tunnel=0.0)

    def expiry(
        self,
        now: float,
        state: ChannelState,
        draining: bool = False,
        timeouts: FrontendTimeouts | None = None,
        **activity: Any,
    ) -> Expiry | None:
        """The result at `now` for a connection in `state` with these properties."""
        channel = Activity(state, **activity)
        return find_expiry(channel, timeouts or self.timeouts, now, draining)

    def assert_expires(
        self, limit: float, expected: Expiry, state: ChannelState, **arguments: Any
    ) -> None:
        """The timeout expires at `limit` seconds, not before."""
        self.assertIsNone(self.expiry(limit - 0.01, state, **arguments))
        self.assertIs(self.expiry(limit, state, **arguments), expected)

    def assert_never_expires(self, state: ChannelState, **arguments: Any) -> None:
        """No timeout applies."""
        self.assertIsNone(self.expiry(1e9, state, **arguments))

    def test_idle_connection_is_closed(self) -> None:
        """Between requests the idle timeout applies."""
        self.assert_expires(60.0, Expiry.CLOSE, ChannelState.READING_HEAD)

    def test_idle_timeout_counts_from_the_last_activity(self) -> None:
        """Activity restarts the idle timeout."""
        self.assert_expires(100.0, Expiry.CLOSE, ChannelState.READING_HEAD, last_activity=40.0)

    def test_incomplete_head_expires(self) -> None:
        """The header timeout counts from the head's start, however steadily bytes arrive."""
        self.assert_expires(
            15.0,
            Expiry.HEADER_TIMEOUT,
            ChannelState.READING_HEAD,
            head_started_at=5.0,
            last_activity=14.0,
            no_input=False,
        )

    def test_draining_closes_idle_connections_early(self) -> None:
        """While draining, a connection without input is closed after a short time."""
        self.assert_expires(
            DRAIN_IDLE_TIMEOUT, Expiry.CLOSE, ChannelState.READING_HEAD, draining=True
        )
        self.assert_expires(
            DRAIN_IDLE_TIMEOUT,
            Expiry.CLOSE,
            ChannelState.READING_HEAD,
            draining=True,
            head_started_at=0.0,
        )

    def test_draining_keeps_connections_with_input(self) -> None:
        """While draining, a partial head still has the whole header timeout."""
        self.assert_expires(
            10.0,
            Expiry.HEADER_TIMEOUT,
            ChannelState.READING_HEAD,
            draining=True,
            head_started_at=0.0,
            no_input=False,
        )

    def test_incomplete_body_expires(self) -> None:
        """Within a body the idle timeout applies."""
        self.assert_expires(60.0, Expiry.BODY_TIMEOUT, ChannelState.READING_BODY)

    def test_body_does_not_expire_while_reading_is_paused(self) -> None:
        """A body that the proxy does not read is not late."""
        self.assert_never_expires(ChannelState.READING_BODY, reading=False)

    def test_discarded_body_expires_despite_activity(self) -> None:
        """A discarded body must end within the idle timeout, counted from the response."""
        self.assert_expires(
            65.0,
            Expiry.CLOSE,
            ChannelState.DISCARDING_BODY,
            head_started_at=5.0,
            last_activity=64.0,
        )

    def test_pending_response_does_not_expire(self) -> None:
        """A client may wait for its response without limit; upstream timeouts end the wait."""
        self.assert_never_expires(ChannelState.AWAITING_RESPONSE)

    def test_half_closed_client_waits_for_a_short_time(self) -> None:
        """After the client's EOF the response must start soon."""
        self.assert_expires(
            HALF_CLOSE_TIMEOUT,
            Expiry.ABORT,
            ChannelState.AWAITING_RESPONSE,
            half_closed=True,
        )

    def test_half_closed_client_receives_a_started_response(self) -> None:
        """After the client's EOF a response that has started may take its time."""
        self.assert_never_expires(
            ChannelState.AWAITING_RESPONSE, half_closed=True, downstream_response_started=True
        )

    def test_tunnel_has_no_timeout_by_default(self) -> None:
        """An idle tunnel stays open if the tunnel timeout is 0."""
        self.assert_never_expires(ChannelState.TUNNEL)

    def test_idle_tunnel_is_aborted(self) -> None:
        """The tunnel timeout, if set, aborts an idle tunnel, half-closed or not."""
        timeouts = FrontendTimeouts(header=10.0, idle=60.0, tunnel=90.0)
        for half_closed in (False, True):
            self.assert_expires(
                90.0,
                Expiry.ABORT,
                ChannelState.TUNNEL,
                timeouts=timeouts,
                tunnel_half_closed=half_closed,
            )

    def test_half_closed_tunnel_has_the_idle_timeout(self) -> None:
        """Without a tunnel timeout a half-closed tunnel is aborted after the idle timeout."""
        self.assert_expires(60.0, Expiry.ABORT, ChannelState.TUNNEL, tunnel_half_closed=True)

    def test_lingering_close_ends(self) -> None:
        """A lingering connection is closed when the client has sent nothing for a while."""
        self.assert_expires(
            LINGERING_TIMEOUT,
            Expiry.CLOSE,
            ChannelState.LINGERING_CLOSE,
            output_flushed=True,
        )

    def test_client_that_does_not_read_is_aborted(self) -> None:
        """While output waits for the client, the idle timeout resets the connection."""
        for state in ChannelState:
            self.assert_expires(60.0, Expiry.ABORT, state, write_blocked=True)
        for state in (ChannelState.CLOSING, ChannelState.LINGERING_CLOSE):
            self.assert_expires(60.0, Expiry.ABORT, state)

    def test_states_that_wait_for_the_client_to_read(self) -> None:
        """Output is awaited when writing is paused, when closing, and before lingering."""
        waiting = [state for state in ChannelState if awaits_client_read(Activity(state))]
        self.assertEqual(waiting, [ChannelState.LINGERING_CLOSE, ChannelState.CLOSING])
        lingering = Activity(ChannelState.LINGERING_CLOSE, output_flushed=True)
        self.assertFalse(awaits_client_read(lingering))
        self.assertTrue(awaits_client_read(Activity(write_blocked=True)))

    def test_closed_connection_does_not_expire(self) -> None:
        """Nothing is left to do for a closed connection."""
        self.assert_never_expires(ChannelState.CLOSED)
