"""What signals do: SIGTERM and SIGINT drain, SIGHUP reloads, SIGUSR2 starts a successor."""

from __future__ import annotations

import signal
import threading
from typing import Any, Callable

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.errors import StartError
from balancebeam.process.hot_restart import PidFile, end_predecessor, start_successor
from balancebeam.process.systemd import Manager
from balancebeam.server.balancer import BalancerService


class SignalService(service.Service):
    """
    Listens to signals once the reactor runs, in the place of Twisted's own
    handlers, and tells the service manager how it goes.
    """

    name = "signals"
    log = Logger()

    def __init__(
        self,
        balancer: BalancerService,
        reactor: Any,
        manager: Manager,
        pid_file: PidFile | None = None,
    ) -> None:
        self._balancer = balancer
        self._reactor = reactor
        self._manager = manager
        self._before: dict[int, Any] = {}
        self._pid_file = pid_file or PidFile({})
        self._ending = self._stopped = False
        # Whether a process has been started that is to follow this one.
        self._followed = False

    def startService(self) -> None:
        super().startService()
        # Twisted installs its own when the reactor begins to run.
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        if not self.running or threading.current_thread() is not threading.main_thread():
            return
        for number, call in (
            (signal.SIGTERM, self.end),
            (signal.SIGINT, self.end),
            (signal.SIGHUP, self.reload),
            (signal.SIGUSR2, self.succeed),
        ):
            self._before[number] = signal.signal(number, self._handler(call))
        self._manager.ready()
        end_predecessor()
        self._balancer.listeners.own()

    def _handler(self, call: Callable[[], None]) -> Callable[[int, Any], None]:
        # A handler may interrupt anything, so it only says what is to be done.
        return lambda number, frame: self._reactor.callFromThread(call)

    def stopService(self) -> Any:
        before, self._before = self._before, {}
        if self._ending and before:
            # The process ends. What is said from here on comes too late, and
            # must not make its status that of one that was killed.
            signal.pthread_sigmask(signal.SIG_BLOCK, before)
        for number, handler in before.items():
            signal.signal(number, handler)
        return super().stopService()

    def end(self) -> None:
        """Let clients go, and end then; at once if this is said again."""
        if self._ending:
            self.log.info("ending at once")
            self._stop()
            return
        self._ending = True
        self.log.info("draining; say it again to end at once")
        if self._followed:
            # For the manager nothing ends, and what listens is the other's.
            self._balancer.listeners.bequeath()
        else:
            self._manager.stopping()
        self._balancer.drain(self._followed).addCallback(lambda _: self._stop()).addErrback(
            lambda failure: self.log.failure("while draining", failure)
        )

    def _stop(self) -> None:
        if self._reactor.running and self.running and not self._stopped:
            self._stopped = True
            self._reactor.stop()

    def reload(self) -> None:
        """Read everything again."""
        if self._ending:
            self.log.info("not reloaded: it is stopping")
            return
        self._manager.reloading()
        status = "Balancing; the last reload was refused."
        try:
            self._balancer.reload()
            status = "Balancing."
        except StartError:
            # The log says what was wrong with it.
            pass
        finally:
            self._manager.ready(status)

    def succeed(self) -> None:
        """Start a successor, which ends this process once it listens."""
        if self._ending or self._followed:
            self.log.info("there is a successor already, or none is needed any more")
            return
        sockets, stuck = self._balancer.listeners.hand_over()
        if stuck:
            places = ", ".join(stuck)
            self.log.error("no successor: {places} cannot be handed over", places=places)
            return
        self.log.info("starting a successor for {sockets}", sockets=", ".join(sockets))
        self._followed = True
        try:
            self._pid_file.make_way()
            start_successor(sockets, self._reactor, self._not_followed)
        except OSError as failure:
            self.log.error("there is no successor: {why}", why=failure)
            self._not_followed()

    def _not_followed(self) -> None:
        """The successor has ended, so this process goes on, if it still can."""
        self._followed = False
        try:
            self._pid_file.come_back()
        except OSError as failure:
            self.log.error("the pid file is lost: {why}", why=failure)
