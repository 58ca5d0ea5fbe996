"""The service that knows how the servers are."""

from __future__ import annotations

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import AdminState, OutlierDetectionSettings
from balancebeam.net.ticker import Ticker
from balancebeam.upstream.health.error_rate import ErrorRatePolicy, ErrorRateWindow
from balancebeam.upstream.health.slow_start import SlowStart
from balancebeam.upstream.health.thresholds import CheckThresholds, FailureThreshold
from balancebeam.upstream.server_set import CheckResult, Server, ServerSet

_SERVER_FAULTS = frozenset(
    (
        FailureKind.UNREACHABLE,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.CLOSED,
        FailureKind.MALFORMED,
        FailureKind.TIMEOUT,
    )
)


class HealthService(service.Service):
    """
    Hears how requests and checks ended, and keeps servers that fail out of the way.

    A server that failed is ejected for its cooldown. Then it is on trial: it
    gets one request, and no other until that has been answered or has failed.
    So a server that is frozen holds up one client, not all of them. While all
    are ejected the proxy fails open, and any answer ends a cooldown. A test
    that takes longer than `max_trial_time` seconds shows nothing.
    """

    name = "health"
    _log = Logger()

    def __init__(
        self,
        server_set: ServerSet,
        ticker: Ticker,
        outlier_detection: OutlierDetectionSettings = OutlierDetectionSettings(),
        check_thresholds: CheckThresholds = CheckThresholds(),
        slow_start: float = 0.0,
        max_trial_time: float = 60.0,
    ) -> None:
        self._server_set = server_set
        self._ticker = ticker
        # When each of those that warm up came back, on the ticker.
        self._warming_up: dict[Server, float] = {}
        self._outliers: set[Server] = set()
        self._generation = -1
        self.configure(outlier_detection, check_thresholds, slow_start, max_trial_time)
        ticker.add(self.sweep)
        server_set.subscribe(self._servers_changed)

    def configure(
        self,
        outlier_detection: OutlierDetectionSettings,
        check_thresholds: CheckThresholds,
        slow_start: float,
        max_trial_time: float,
    ) -> None:
        """Go by these from now on; what is known of servers stays."""
        self._failure_threshold = FailureThreshold(
            outlier_detection.cooldown, outlier_detection.failures
        )
        self._check_thresholds = check_thresholds
        self._window = outlier_detection.window
        self._error_rate_policy: ErrorRatePolicy | None = None
        if outlier_detection.error_ratio is not None:
            self._error_rate_policy = ErrorRatePolicy(
                outlier_detection.error_ratio,
                outlier_detection.min_requests,
                outlier_detection.max_ejected_ratio,
            )
        for server in self._server_set.servers:
            if self._error_rate_policy is None:
                server.error_rate_window = None
            elif server.error_rate_window is not None:
                server.error_rate_window.window = outlier_detection.window
        self._slow_start = SlowStart(slow_start)
        self._max_trial_time = max_trial_time
        self._generation = -1
        self._servers_changed()

    def clear_check_results(self) -> None:
        """Nobody asks servers any more how they are: those that were down for it are up."""
        for server in self._server_set.servers:
            server.check_streak = 0
            if not server.healthy:
                server.healthy = True
                self._set_reason(server, "it is not checked any more")

    # What requests tell.

    def request_sent(self, server: Server, request: object) -> None:
        """A tracked server is given `request`."""
        if server.under_observation:
            server.trial_requests.add(request)
            if server.half_open:
                server.half_open = False
                server.ejected = True
                server.trial_started_at = self._ticker.now
                self._server_set.notify(server)

    def response_started(self, server: Server, request: object, status: int) -> None:
        """The answer of a tracked server to `request` has begun."""
        if server.error_rate_window is not None:
            self._count_response(server, status)
        # What a server was asked before it failed shows nothing.
        if request in server.trial_requests and (server.ejected or server.half_open):
            if server in self._outliers and status >= 500:
                server.trial_requests.discard(request)
                self._eject_outlier(server, "its answers are still errors")
            else:
                self._uneject(server)

    def response_finished(self, server: Server, request: object) -> None:
        """A tracked server has answered `request` to its end."""
        if request in server.trial_requests and not server.ejected and not server.half_open:
            self._reset(server)

    def request_released(self, server: Server, request: object) -> None:
        """`request` is over for a tracked server, one way or another."""
        server.trial_requests.discard(request)
        if (
            server.ejected
            and not server.trial_requests
            and server.ejected_until <= self._ticker.now
        ):
            # The client left before the server could show anything.
            self._half_open(server)

    def request_failed(self, server: Server, request: object, failure: UpstreamFailure) -> None:
        """
        `request` failed at `server`; `None` for an attempt to connect that
        nobody waits for any more.
        """
        if failure.kind not in _SERVER_FAULTS or server.removed:
            return
        tested = request in server.trial_requests or (request is None and not server.ejected)
        server.trial_requests.discard(request)
        now = self._ticker.now
        if server.ejected and server.ejected_until > now:
            # Several requests may have been under way to it: one outage.
            return
        if server.recently_ejected and not tested:
            # It was asked this before it failed, and may have recovered since.
            return
        server.track(under_observation=True)
        server.healthy_since = now
        if self._failure_threshold.record_failure(server, now):
            self._eject(server, failure.detail)

    def _eject(self, server: Server, reason: str) -> None:
        server.ejected = server.recently_ejected = True
        server.half_open = False
        server.trial_requests.clear()
        server.check_streak = min(server.check_streak, 0)
        self._set_reason(server, reason)
        self._log.warn(
            "{server} is ejected for {seconds:g} s: {reason}",
            server=server.name,
            seconds=server.cooldown,
            reason=reason,
        )

    def _uneject(self, server: Server) -> None:
        """It answers. Whether it does so to the end is another question."""
        server.ejected = server.half_open = False
        server.ejected_until = 0.0
        self._outliers.discard(server)
        self._log.info("{server} answers again", server=server.name)
        self._recovered(server, "it answers again")

    def _reset(self, server: Server) -> None:
        """It is as good as new; but who was asked before the outage may yet complain."""
        self._failure_threshold.record_success(server)
        server.healthy_since = self._ticker.now
        server.half_open = False
        self._outliers.discard(server)
        if server.ejected:
            server.ejected = False
            self._server_set.notify(server)

    def _count_response(self, server: Server, status: int) -> None:
        counts, outliers, now = server.error_rate_window, self._error_rate_policy, self._ticker.now
        if counts is None or outliers is None:
            # It has left, or nobody counts any more.
            return
        counts.add(status >= 500, now)
        if status < 500 or server.ejected or not outliers.exceeded(counts):
            return
        if outliers.can_eject(len(self._outliers), len(self._server_set.servers)):
            share = counts.errors / counts.responses
            counts.clear()
            self._outliers.add(server)
            self._eject_outlier(server, f"{share:.0%} of its answers were errors")

    def _eject_outlier(self, server: Server, reason: str) -> None:
        if self._failure_threshold.cooldown and server.ejected_until <= self._ticker.now:
            server.track(under_observation=True)
            self._failure_threshold.start_cooldown(server, self._ticker.now)
            self._eject(server, reason)

    # What checks tell.

    def check_finished(self, server: Server, passed: bool, reason: str) -> None:
        """An active check of `server` has ended; `reason` says what it saw."""
        server.last_check = CheckResult(self._ticker.wall_time(), passed, reason)
        changed = self._check_thresholds.record_check(server, passed)
        if passed and server.ejected and server.check_streak >= self._check_thresholds.rise:
            self._reset(server)
            changed = True
        if changed and passed:
            self._log.info("{server} is up: {reason}", server=server.name, reason=reason)
            self._recovered(server, reason)
        elif changed:
            self._log.warn("{server} is down: {reason}", server=server.name, reason=reason)
            self._set_reason(server, reason)

    # What the operator wants.

    def set_admin_state(self, server: Server, state: AdminState) -> None:
        """Let `server` have traffic, or have it drained, or leave it alone altogether."""
        before = server.admin_state
        if state is before:
            return
        self._server_set.set_admin_state(server, state, self._ticker.wall_time())
        if before is AdminState.MAINTENANCE:
            # Whatever was wrong with it has been mended.
            self._reset(server)
            self._recovered(server, server.status_reason)

    def set_weight(self, server: Server, weight: int) -> None:
        """Give `server` a new weight, from 0 to 256."""
        server.weight = weight
        server.effective_weight = float(weight)
        since = self._warming_up.get(server)
        if since is not None:
            server.effective_weight = self._slow_start.effective_weight(
                weight, self._ticker.now - since
            )
        self._server_set.notify(server)

    # What time brings.

    def sweep(self, now: float) -> None:
        """End cooldowns, and let shares grow."""
        suspects = [server for server in self._server_set.servers if server.under_observation]
        self._half_open(*(server for server in suspects if self._cooldown_expired(server, now)))
        for server in suspects:
            well = not (
                server.ejected or server.half_open or server.consecutive_failures or server.cooldown
            )
            if well and now - server.healthy_since >= self._max_trial_time:
                server.track(under_observation=False)
                server.recently_ejected = False
                server.trial_requests.clear()
        if self._warming_up:
            self._update_slow_start(now)

    def _cooldown_expired(self, server: Server, now: float) -> bool:
        """Whether a server's cooldown is over, and it is not being tested."""
        if not server.ejected or server.ejected_until > now:
            return False
        # A client may take for ever to say what it wants.
        return not server.trial_requests or now - server.trial_started_at >= self._max_trial_time

    def _half_open(self, *servers: Server) -> None:
        for server in servers:
            server.ejected = False
            server.half_open = True
        if servers:
            self._server_set.notify(*servers)

    def _update_slow_start(self, now: float) -> None:
        warming = list(self._warming_up.items())
        for server, since in warming:
            server.effective_weight = self._slow_start.effective_weight(server.weight, now - since)
            if server.effective_weight >= server.weight:
                del self._warming_up[server]
        self._server_set.notify(*(server for server, _ in warming))

    def _recovered(self, server: Server, reason: str) -> None:
        if self._slow_start.seconds:
            self._warming_up[server] = self._ticker.now
            server.effective_weight = self._slow_start.effective_weight(server.weight, 0.0)
        self._set_reason(server, reason)

    def _set_reason(self, server: Server, reason: str) -> None:
        server.status_reason, server.status_since = reason, self._ticker.wall_time()
        self._server_set.notify(server)

    def _servers_changed(self) -> None:
        """Servers may have come or gone."""
        if self._generation == self._server_set.generation:
            return
        self._generation = self._server_set.generation
        self._outliers = {server for server in self._outliers if not server.removed}
        self._warming_up = {s: since for s, since in self._warming_up.items() if not s.removed}
        if self._error_rate_policy is not None:
            for server in self._server_set.servers:
                if server.error_rate_window is None:
                    server.error_rate_window = ErrorRateWindow(self._window)
                    server.track(load_tracked=True)
