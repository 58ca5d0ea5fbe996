"""The checker service: runs active health checks at a fixed interval."""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.settings import AdminState, HealthCheckSettings
from balancebeam.net.descriptors import is_shortage, shortage_log
from balancebeam.upstream.health.check_failures import check_failure_reason, failure_detail
from balancebeam.upstream.health.probes import Probe
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet

# Share of the interval over which the checks of a round are spread, so that they do not
# start all at once; like HAProxy's `spread-checks`.
SPREAD_FRACTION = 0.1


class CheckerService(service.Service):
    """
    Checks every server of a set once per interval, and reports to the health service.

    The first round starts one interval after the service. A round skips servers in
    maintenance, and servers whose previous check is still running.
    """

    name = "checker"
    _log = Logger()

    def __init__(
        self,
        probe: Probe,
        settings: HealthCheckSettings,
        server_set: ServerSet,
        health: HealthService,
        clock: IReactorTime,
    ) -> None:
        """
        Args:
            probe: Checks one server.
            settings: Interval and timeout.
            server_set: The servers to check.
            health: Receives the results.
            clock: Schedules the checks and their timeouts.
        """
        self._probe = probe
        self._settings = settings
        self._server_set = server_set
        self._health = health
        self._clock = clock
        self._loop = LoopingCall(self._start_round)
        self._loop.clock = clock
        # Delayed calls of the checks of this round.
        self._scheduled: list[IDelayedCall] = []
        self._running: dict[Server, Deferred[None]] = {}

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._settings.interval, now=False).addErrback(
            lambda failure: self._log.failure("health checks stopped by an error", failure)
        )

    def stopService(self) -> Any:
        # First, so that the results of cancelled checks are ignored.
        stopped = super().stopService()
        if self._loop.running:
            self._loop.stop()
        for call in self._scheduled:
            if call.active():
                call.cancel()
        self._scheduled = []
        running, self._running = self._running, {}
        for check in running.values():
            check.cancel()
        return stopped

    def _start_round(self) -> None:
        """Schedule the checks of one round, evenly over the first part of the interval."""
        servers = self._server_set.servers
        gap = self._settings.interval * SPREAD_FRACTION / max(1, len(servers))
        self._scheduled = [call for call in self._scheduled if call.active()]
        for number, server in enumerate(servers):
            self._scheduled.append(self._clock.callLater(number * gap, self._check, server))

    def _check(self, server: Server) -> None:
        if server in self._running or not self._should_check(server):
            return
        check: Deferred[str] = Deferred.fromCoroutine(self._probe.check(server))
        check.addTimeout(self._settings.effective_timeout, self._clock)
        finished = check.addCallbacks(
            lambda reason: self._check_finished(server, True, reason),
            lambda failure: self._check_failed(server, failure),
        )
        finished.addErrback(
            lambda failure: self._log.failure(
                "result of a health check of {server} not processed", failure, server=server.name
            )
        )
        if not finished.called:
            self._running[server] = finished

    def _check_failed(self, server: Server, failure: Failure) -> None:
        """Process a failed check; the first after a passed one is logged in full."""
        reasons = getattr(failure.value, "reasons", None)
        if is_shortage(reasons[0].value if reasons else failure.value):
            # No result: the server was not reached because of this process.
            self._running.pop(server, None)
            shortage_log.report(self._clock.seconds(), "no health checks are made")
            return
        if self.running and self._should_check(server) and server.check_streak >= 0:
            self._log.warn(
                "health check of server {server} failed: {result}",
                server=server.name,
                result=failure_detail(failure, self._settings),
            )
        self._check_finished(
            server, False, check_failure_reason(failure, self._settings.effective_timeout)
        )

    def _check_finished(self, server: Server, passed: bool, reason: str) -> None:
        self._running.pop(server, None)
        if self.running and self._should_check(server):
            self._health.check_finished(server, passed, reason)

    def _should_check(self, server: Server) -> bool:
        """Whether `server` is in the set and not in maintenance."""
        in_maintenance = server.admin_state is AdminState.MAINTENANCE
        return not in_maintenance and server in self._server_set.servers
