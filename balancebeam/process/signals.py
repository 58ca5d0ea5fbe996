"""What signals do: SIGTERM and SIGINT drain, SIGHUP reloads, SIGUSR2 starts a successor."""

from __future__ import annotations

import signal
import threading
from typing import Any, Callable

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.errors import StartupError
from balancebeam.process.hot_restart import PidFile, spawn_new_process, stop_old_process
from balancebeam.process.systemd import SystemdNotifier
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
        notifier: SystemdNotifier,
        pid_file: PidFile | None = None,
    ) -> None:
        self._balancer = balancer
        self._reactor = reactor
        self._notifier = notifier
        self._previous_handlers: dict[int, Any] = {}
        self._pid_file = pid_file or PidFile({})
        self._draining = self._reactor_stopped = False
        # Whether a process has been started that is to follow this one.
        self._successor_running = False

    def startService(self) -> None:
        super().startService()
        # Twisted installs its own when the reactor begins to run.
        self._reactor.callWhenRunning(self._install_handlers)

    def _install_handlers(self) -> None:
        if not self.running or threading.current_thread() is not threading.main_thread():
            return
        for number, callback in (
            (signal.SIGTERM, self.graceful_shutdown),
            (signal.SIGINT, self.graceful_shutdown),
            (signal.SIGHUP, self.reload),
            (signal.SIGUSR2, self.hot_restart),
        ):
            self._previous_handlers[number] = signal.signal(number, self._make_handler(callback))
        self._notifier.ready()
        stop_old_process()
        self._balancer.listeners.own_socket_files()

    def _make_handler(self, callback: Callable[[], None]) -> Callable[[int, Any], None]:
        # A handler may interrupt anything, so it only says what is to be done.
        return lambda number, frame: self._reactor.callFromThread(callback)

    def stopService(self) -> Any:
        before, self._previous_handlers = self._previous_handlers, {}
        if self._draining and before:
            # The process ends. What is said from here on comes too late, and
            # must not make its status that of one that was killed.
            signal.pthread_sigmask(signal.SIG_BLOCK, before)
        for number, handler in before.items():
            signal.signal(number, handler)
        return super().stopService()

    def graceful_shutdown(self) -> None:
        """Let clients go, and end then; at once if this is said again."""
        if self._draining:
            self.log.info("ending at once")
            self._stop_reactor()
            return
        self._draining = True
        self.log.info("draining; say it again to end at once")
        if self._successor_running:
            # For the manager nothing ends, and what listens is the other's.
            self._balancer.listeners.disown_socket_files()
        else:
            self._notifier.stopping()
        self._balancer.drain(self._successor_running).addCallback(
            lambda _: self._stop_reactor()
        ).addErrback(lambda failure: self.log.failure("while draining", failure))

    def _stop_reactor(self) -> None:
        if self._reactor.running and self.running and not self._reactor_stopped:
            self._reactor_stopped = True
            self._reactor.stop()

    def reload(self) -> None:
        """Read everything again."""
        if self._draining:
            self.log.info("not reloaded: it is stopping")
            return
        self._notifier.reloading()
        status = "Balancing; the last reload was refused."
        try:
            self._balancer.reload()
            status = "Balancing."
        except StartupError:
            # The log says what was wrong with it.
            pass
        finally:
            self._notifier.ready(status)

    def hot_restart(self) -> None:
        """Start a successor, which ends this process once it listens."""
        if self._draining or self._successor_running:
            self.log.info("there is a successor already, or none is needed any more")
            return
        sockets, stuck = self._balancer.listeners.export_sockets()
        if stuck:
            places = ", ".join(stuck)
            self.log.error("no successor: {places} cannot be handed over", places=places)
            return
        self.log.info("starting a successor for {sockets}", sockets=", ".join(sockets))
        self._successor_running = True
        try:
            self._pid_file.move_aside()
            spawn_new_process(sockets, self._reactor, self._successor_failed)
        except OSError as failure:
            self.log.error("there is no successor: {reason}", reason=failure)
            self._successor_failed()

    def _successor_failed(self) -> None:
        """The successor has ended, so this process goes on, if it still can."""
        self._successor_running = False
        try:
            self._pid_file.restore()
        except OSError as failure:
            self.log.error("the pid file is lost: {reason}", reason=failure)
