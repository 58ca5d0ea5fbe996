"""
Outlier ejection: servers that fail requests leave the rotation for a while.

A failing server is ejected for its cooldown. Then it is half-open: it gets one trial
request, and others only when that has been answered, so that a server that hangs delays
one client and not all. If all servers are ejected, the pool fails open and uses them
anyway; then any response ends an ejection.

=============  ==========================================  =============
State          Event                                       Next state
=============  ==========================================  =============
in rotation    too many failures, bad answers or errors    ejected
ejected        cooldown expired, no trial request running  half-open
ejected        response to a trial request                 in rotation
ejected        trial request failed after the cooldown     ejected, for twice as long
half-open      request sent (the trial request)            ejected, until its outcome
=============  ==========================================  =============

A trial request without an outcome expires after `max_trial_time`. The design follows
Envoy's outlier detection and circuit breakers; see `ejection_state` for the data.
"""

from __future__ import annotations

from typing import Callable

from twisted.logger import Logger

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import OutlierDetectionSettings
from balancebeam.net.ticker import Ticker
from balancebeam.upstream.health.error_rate import ErrorRatePolicy, ErrorRateWindow
from balancebeam.upstream.health.thresholds import FailureThreshold
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet

# The failures that count against a server; the others are a race or the client's fault.
# Bad answers have a limit of their own, as with HAProxy's `observe layer7` and Envoy's
# consecutive gateway failures.
_BAD_ANSWERS = frozenset(
    (
        *(FailureKind.CLOSED, FailureKind.MALFORMED, FailureKind.STALLED),
        FailureKind.STREAM_RESET,
    )
)
_SERVER_FAULTS = _BAD_ANSWERS | {
    FailureKind.UNREACHABLE,
    FailureKind.CONNECT_TIMEOUT,
    FailureKind.RESET,
    FailureKind.TIMEOUT,
}


class OutlierDetector:
    """
    Ejects servers by the outcome of their requests, and returns them to the rotation.

    The dispatcher calls `request_sent`, `response_started`, `response_finished` and
    `request_released` for tracked servers only, and `request_failed` for all.
    """

    _log = Logger()

    def __init__(
        self, server_set: ServerSet, ticker: Ticker, on_recovery: Callable[[Server, str], None]
    ) -> None:
        """
        Args:
            server_set: The servers.
            ticker: Clock of cooldowns.
            on_recovery: Called with a server that is no longer ejected, and the reason; it
                notifies the server set.
        """
        self._server_set = server_set
        self._ticker = ticker
        self._on_recovery = on_recovery
        # Servers that were ejected for their error rate.
        self._outliers: set[Server] = set()
        self._settings = OutlierDetectionSettings()
        self._threshold = FailureThreshold(0.0)
        self._error_rate_policy: ErrorRatePolicy | None = None
        self._max_trial_time = 0.0

    def configure(self, settings: OutlierDetectionSettings, max_trial_time: float) -> None:
        """
        Apply new settings; the state of servers does not change.

        Args:
            settings: Thresholds and cooldown.
            max_trial_time: Seconds after which a trial request counts as inconclusive.
        """
        self._settings = settings
        self._threshold = FailureThreshold(
            settings.cooldown, settings.failures, settings.bad_answers
        )
        self._error_rate_policy = ErrorRatePolicy.from_settings(settings)
        self._max_trial_time = max_trial_time
        for server in self._server_set.servers:
            if self._error_rate_policy is None:
                server.error_rate_window = None
            elif server.error_rate_window is not None:
                server.error_rate_window.window = settings.window

    def servers_changed(self) -> None:
        """Give error-rate windows to new servers, and forget removed ones."""
        self._outliers = {server for server in self._outliers if not server.removed}
        if self._error_rate_policy is not None:
            for server in self._server_set.servers:
                if server.error_rate_window is None:
                    server.error_rate_window = ErrorRateWindow(self._settings.window)
                    server.track(load_tracked=True)

    def request_sent(self, server: Server, request: object) -> None:
        """`request` was given to `server`."""
        if server.under_observation:
            ejection = server.ejection
            ejection.trial_requests.add(request)
            if ejection.half_open:
                ejection.half_open = False
                server.ejected = True
                ejection.trial_started_at = self._ticker.now
                self._server_set.notify(server)

    def response_started(self, server: Server, request: object, status: int) -> None:
        """`server` has started to respond to `request`."""
        if server.error_rate_window is not None:
            self._count_response(server, server.error_rate_window, status)
        if not server.under_observation:
            return
        # Responses to requests sent before the ejection prove nothing.
        ejection = server.ejection
        if request in ejection.trial_requests and (server.ejected or ejection.half_open):
            if server in self._outliers and status >= 500:
                ejection.trial_requests.discard(request)
                self._eject_outlier(server, "still responding with errors")
            else:
                self._uneject(server)

    def response_finished(self, server: Server, request: object) -> None:
        """`server` has completed the response to `request`."""
        if server.under_observation:
            ejection = server.ejection
            in_rotation = not server.ejected and not ejection.half_open
            if in_rotation and request in ejection.trial_requests:
                self.reset(server)

    def request_released(self, server: Server, request: object) -> None:
        """`request` has ended for `server`, with or without a response."""
        if server.under_observation:
            ejection = server.ejection
            ejection.trial_requests.discard(request)
            expired = ejection.ejected_until <= self._ticker.now
            if server.ejected and not ejection.trial_requests and expired:
                # The client aborted the trial request, which proves nothing: try another.
                self._set_half_open(server)

    def request_failed(
        self, server: Server, request: object | None, failure: UpstreamFailure
    ) -> None:
        """
        `request` failed at `server`.

        Args:
            server: The server, tracked or not.
            request: The request; `None` for a connect attempt whose request has ended.
            failure: What happened.
        """
        if failure.kind not in _SERVER_FAULTS or server.removed:
            return
        ejection = server.ejection
        conclusive = request in ejection.trial_requests or (request is None and not server.ejected)
        ejection.trial_requests.discard(request)
        now = self._ticker.now
        if server.ejected and ejection.ejected_until > now:
            # Concurrent requests that fail together count as one failure.
            return
        if ejection.recently_ejected and not conclusive:
            # The request was sent before the ejection; the server may have recovered since.
            return
        server.track(under_observation=True)
        ejection.healthy_since = now
        bad_answer = failure.kind in _BAD_ANSWERS
        trial = server.ejected or ejection.half_open
        if self._threshold.record_failure(ejection, now, bad_answer, trial):
            self._eject(server, failure.reason, failure.kind.label)

    def _count_response(self, server: Server, counts: ErrorRateWindow, status: int) -> None:
        policy = self._error_rate_policy
        if policy is None:
            # A removed server keeps its window when a reload disables the error rate.
            return
        counts.add(status >= 500, self._ticker.now)
        if status < 500 or server.ejected or not policy.exceeded(counts):
            return
        if policy.can_eject(len(self._outliers), len(self._server_set.servers)):
            ratio = counts.errors / counts.responses
            counts.clear()
            self._outliers.add(server)
            self._eject_outlier(server, f"{ratio:.0%} of its responses were errors")

    def _eject(self, server: Server, reason: str, label: str) -> None:
        server.ejections[label] = server.ejections.get(label, 0) + 1
        server.ejected = server.ejection.recently_ejected = True
        server.ejection.half_open = False
        server.ejection.trial_requests.clear()
        server.check_streak = min(server.check_streak, 0)
        self._server_set.set_status_reason(server, reason, self._ticker.wall_time())
        self._log.warn(
            "server {server} ejected for {seconds:g} s: {reason}",
            server=server.name,
            seconds=server.ejection.cooldown,
            reason=reason,
        )

    def _eject_outlier(self, server: Server, reason: str) -> None:
        now = self._ticker.now
        if self._threshold.cooldown and server.ejection.ejected_until <= now:
            server.track(under_observation=True)
            self._threshold.start_cooldown(server.ejection, now)
            self._eject(server, reason, "error-rate")

    def _uneject(self, server: Server) -> None:
        """Return a server that responds to the rotation; `reset` follows a whole response."""
        server.ejected = server.ejection.half_open = False
        server.ejection.ejected_until = 0.0
        self._outliers.discard(server)
        reason = "it responds again"
        self._log.info("server {server} readmitted: {reason}", server=server.name, reason=reason)
        self._on_recovery(server, reason)

    def reset(self, server: Server) -> None:
        """
        Reset the failure state of `server`.

        Requests sent before the ejection may still fail; `recently_ejected` stays set, so
        that `request_failed` ignores them.
        """
        ejection = server.ejection
        self._threshold.record_success(ejection)
        ejection.healthy_since = self._ticker.now
        ejection.half_open = False
        self._outliers.discard(server)
        if server.ejected:
            server.ejected = False
            self._server_set.notify(server)

    def _set_half_open(self, *servers: Server) -> None:
        for server in servers:
            server.ejected = False
            server.ejection.half_open = True
        if servers:
            self._server_set.notify(*servers)

    def sweep(self, now: float) -> None:
        """End cooldowns, and the observation of servers without further failures."""
        observed = [server for server in self._server_set.servers if server.under_observation]
        self._set_half_open(*(server for server in observed if self._cooldown_expired(server, now)))
        for server in observed:
            ejection = server.ejection
            failing = ejection.consecutive_failures or ejection.consecutive_bad_answers
            if failing or server.ejected or ejection.half_open or ejection.cooldown:
                continue
            if now - ejection.healthy_since >= self._max_trial_time:
                server.track(under_observation=False)
                ejection.recently_ejected = False
                ejection.trial_requests.clear()

    def _cooldown_expired(self, server: Server, now: float) -> bool:
        """Whether the cooldown of `server` has expired, and no trial request is running."""
        ejection = server.ejection
        if not server.ejected or ejection.ejected_until > now:
            return False
        # A client may upload its request body for ever: a trial request has a time limit.
        expired = now - ejection.trial_started_at >= self._max_trial_time
        return not ejection.trial_requests or expired
