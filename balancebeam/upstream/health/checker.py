"""The service that asks servers, round after round, whether they are well."""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.settings import AdminState, HealthCheckSettings
from balancebeam.upstream.health.probes import Probe
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet

# The part of an interval over which the checks of a round are spread.
SPREAD_FRACTION = 0.1


class CheckerService(service.Service):
    """
    Checks every server of `server_set` once per interval, and tells `health`.

    The first round begins one interval after the start. A server whose last
    check has not ended is left out of a round, and so is one in maintenance.
    """

    name = "checker"
    _log = Logger()

    def __init__(
        self,
        probe: Probe,
        settings: HealthCheckSettings,
        server_set: ServerSet,
        health: HealthService,
        clock: Any,
    ) -> None:
        self._probe = probe
        self._settings = settings
        self._server_set = server_set
        self._health = health
        self._clock = clock
        self._loop = LoopingCall(self._start_round)
        self._loop.clock = clock
        self._scheduled: list[Any] = []
        self._running: dict[Server, Deferred[None]] = {}

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._settings.interval, now=False).addErrback(
            lambda failure: self._log.failure("the checks have stopped", failure)
        )

    def stopService(self) -> Any:
        # First, so that nothing that is cancelled counts.
        stopped = super().stopService()
        if self._loop.running:
            self._loop.stop()
        for call in self._scheduled:
            if call.active():
                call.cancel()
        self._scheduled = []
        asked, self._running = self._running, {}
        for checking in asked.values():
            checking.cancel()
        return stopped

    def _start_round(self) -> None:
        """Begin the checks of one round, evenly over the first part of the interval."""
        servers = self._server_set.servers
        gap = self._settings.interval * SPREAD_FRACTION / max(1, len(servers))
        self._scheduled = [call for call in self._scheduled if call.active()]
        for number, server in enumerate(servers):
            self._scheduled.append(self._clock.callLater(number * gap, self._check, server))

    def _check(self, server: Server) -> None:
        if server in self._running or not self._should_check(server):
            return
        checking: Deferred[str] = Deferred.fromCoroutine(self._probe.check(server))
        checking.addTimeout(self._settings.effective_timeout, self._clock)
        heard = checking.addCallbacks(
            lambda seen: self._check_finished(server, True, seen),
            lambda failure: self._check_finished(server, False, self._failure_reason(failure)),
        )
        heard.addErrback(lambda failure: self._log.failure("after a check", failure))
        if not heard.called:
            self._running[server] = heard

    def _check_finished(self, server: Server, passed: bool, reason: str) -> None:
        self._running.pop(server, None)
        if self.running and self._should_check(server):
            self._health.check_finished(server, passed, reason)

    def _should_check(self, server: Server) -> bool:
        """Whether anybody wants to know how `server` is."""
        maintained = server.admin_state is AdminState.MAINTENANCE
        return not maintained and server in self._server_set.servers

    def _failure_reason(self, failure: Failure) -> str:
        # What goes wrong while a response is awaited comes wrapped.
        reasons = getattr(failure.value, "reasons", None)
        inner: Failure = reasons[0] if reasons else failure
        if inner.check(TimeoutError, CancelledError):
            return f"the check took longer than {self._settings.effective_timeout:g} s"
        return inner.getErrorMessage() or type(inner.value).__name__
