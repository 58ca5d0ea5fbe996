"""The health service: the one place that changes the health, admin state and weight of servers."""

from __future__ import annotations

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.settings import AdminState, OutlierDetectionSettings
from balancebeam.net.ticker import Ticker
from balancebeam.upstream.health.ejection import OutlierDetector
from balancebeam.upstream.health.slow_start import SlowStart, WarmingServers
from balancebeam.upstream.health.thresholds import CheckThresholds
from balancebeam.upstream.server import CheckResult, Server
from balancebeam.upstream.server_set import ServerSet


class HealthService(service.Service):
    """
    Tracks the health of the servers of one pool.

    It combines outlier ejection (`ejection`), the results of active checks (which
    `CheckerService` makes), the admin state, and slow start.

    Attributes:
        request_sent: See `OutlierDetector.request_sent`.
        response_started: See `OutlierDetector.response_started`.
        response_finished: See `OutlierDetector.response_finished`.
        request_released: See `OutlierDetector.request_released`.
        request_failed: See `OutlierDetector.request_failed`.
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
        """
        Args:
            server_set: The servers of the pool.
            ticker: Clock of cooldowns and slow start.
            outlier_detection: When and for how long servers are ejected.
            check_thresholds: How many active checks change the health of a server.
            slow_start: Seconds until a recovered server has its full weight again.
            max_trial_time: Seconds after which a trial request is inconclusive.
        """
        self._server_set = server_set
        self._ticker = ticker
        self._outlier_detector = OutlierDetector(server_set, ticker, self._recovered)
        self._warming = WarmingServers(server_set, ticker)
        # Bound here because the dispatcher calls them for each request of a tracked
        # server; methods that delegate would add 45 ns to each of four calls.
        self.request_sent = self._outlier_detector.request_sent
        self.response_started = self._outlier_detector.response_started
        self.response_finished = self._outlier_detector.response_finished
        self.request_released = self._outlier_detector.request_released
        self.request_failed = self._outlier_detector.request_failed
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
        """Apply new settings (see the constructor); the state of servers does not change."""
        self._check_thresholds = check_thresholds
        self._warming.slow_start = SlowStart(slow_start)
        self._outlier_detector.configure(outlier_detection, max_trial_time)
        self._generation = -1
        self._servers_changed()

    def check_finished(self, server: Server, passed: bool, reason: str) -> None:
        """Process the result of an active check; `reason` says what it saw."""
        server.last_check = CheckResult(self._ticker.wall_time(), passed, reason)
        changed = self._check_thresholds.record_check(server, passed)
        if passed and server.ejected and server.check_streak >= self._check_thresholds.rise:
            self._outlier_detector.reset(server)
            changed = True
        if changed and passed:
            self._log.info("server {server} is up: {reason}", server=server.name, reason=reason)
            self._recovered(server, reason)
        elif changed:
            self._log.warn("server {server} is down: {reason}", server=server.name, reason=reason)
            self._server_set.set_status_reason(server, reason, self._ticker.wall_time())

    def clear_check_results(self) -> None:
        """Mark servers that failed active checks as healthy: checks were disabled."""
        for server in self._server_set.servers:
            server.check_streak = 0
            if not server.healthy:
                server.healthy = True
                self._server_set.set_status_reason(
                    server, "health checks disabled", self._ticker.wall_time()
                )

    def set_admin_state(self, server: Server, state: AdminState) -> None:
        """Set the admin state; the end of maintenance also resets the failure state."""
        previous = server.admin_state
        if state is previous:
            return
        self._server_set.set_admin_state(server, state, self._ticker.wall_time())
        if previous is AdminState.MAINTENANCE:
            self._outlier_detector.reset(server)
            self._recovered(server, server.status_reason)

    def set_weight(self, server: Server, weight: int) -> None:
        """Set the weight of `server`, from 0 to 256."""
        self._warming.set_weight(server, weight)
        self._server_set.notify(server)

    def sweep(self, now: float) -> None:
        """Advance cooldowns and slow start; `now` is on the ticker."""
        self._outlier_detector.sweep(now)
        self._warming.sweep(now)

    def _recovered(self, server: Server, reason: str) -> None:
        """Start the slow start of a server that is back in the rotation."""
        self._warming.start(server)
        self._server_set.set_status_reason(server, reason, self._ticker.wall_time())

    def _servers_changed(self) -> None:
        """Follow additions and removals of servers."""
        if self._generation != self._server_set.generation:
            self._generation = self._server_set.generation
            self._outlier_detector.servers_changed()
            self._warming.discard_removed()
