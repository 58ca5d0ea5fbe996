"""The service that asks servers, round after round, whether they are well."""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.settings import HealthCheckSettings, AdminState
from balancebeam.upstream.health.probes import Probe
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.server_set import Directory, Server

# The part of an interval over which the checks of a round are spread.
SPREAD = 0.1


class CheckerService(service.Service):
    """
    Checks every server of `directory` once per interval, and tells `health`.

    The first round begins one interval after the start. A server whose last
    check has not ended is left out of a round, and so is one in maintenance.
    """

    name = "checker"
    _log = Logger()

    def __init__(
        self,
        probe: Probe,
        checks: HealthCheckSettings,
        directory: Directory,
        health: HealthService,
        clock: Any,
    ) -> None:
        self._probe = probe
        self._checks = checks
        self._directory = directory
        self._health = health
        self._clock = clock
        self._loop = LoopingCall(self._round)
        self._loop.clock = clock
        self._due: list[Any] = []
        self._asked: dict[Server, Deferred[None]] = {}

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._checks.interval, now=False).addErrback(
            lambda failure: self._log.failure("the checks have stopped", failure)
        )

    def stopService(self) -> Any:
        # First, so that nothing that is cancelled counts.
        stopped = super().stopService()
        if self._loop.running:
            self._loop.stop()
        for call in self._due:
            if call.active():
                call.cancel()
        self._due = []
        asked, self._asked = self._asked, {}
        for checking in asked.values():
            checking.cancel()
        return stopped

    def _round(self) -> None:
        """Begin the checks of one round, evenly over the first part of the interval."""
        servers = self._directory.servers
        gap = self._checks.interval * SPREAD / max(1, len(servers))
        self._due = [call for call in self._due if call.active()]
        for number, server in enumerate(servers):
            self._due.append(self._clock.callLater(number * gap, self._check, server))

    def _check(self, server: Server) -> None:
        if server in self._asked or not self._concerns(server):
            return
        checking: Deferred[str] = Deferred.fromCoroutine(self._probe.ask(server))
        checking.addTimeout(self._checks.effective_timeout, self._clock)
        heard = checking.addCallbacks(
            lambda seen: self._heard(server, True, seen),
            lambda failure: self._heard(server, False, self._why(failure)),
        )
        heard.addErrback(lambda failure: self._log.failure("after a check", failure))
        if not heard.called:
            self._asked[server] = heard

    def _heard(self, server: Server, passed: bool, why: str) -> None:
        self._asked.pop(server, None)
        if self.running and self._concerns(server):
            self._health.checked(server, passed, why)

    def _concerns(self, server: Server) -> bool:
        """Whether anybody wants to know how `server` is."""
        maintained = server.operator is AdminState.MAINTENANCE
        return not maintained and server in self._directory.servers

    def _why(self, failure: Failure) -> str:
        # What goes wrong while a response is awaited comes wrapped.
        reasons = getattr(failure.value, "reasons", None)
        inner: Failure = reasons[0] if reasons else failure
        if inner.check(TimeoutError, CancelledError):
            return f"the check took longer than {self._checks.effective_timeout:g} s"
        return inner.getErrorMessage() or type(inner.value).__name__
