"""Signals: drain, reload, reopening of log files, hot restart."""

from __future__ import annotations

import signal
import threading
from typing import Any, Callable

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.errors import ConfigError
from balancebeam.process.hot_restart import spawn_new_process, stop_old_process
from balancebeam.process.pid_file import PidFile
from balancebeam.process.program_log import ProgramLog
from balancebeam.process.systemd import SystemdNotifier
from balancebeam.server.balancer import BalancerService


class SignalService(service.Service):
    """
    Handles signals once the reactor runs, and reports the state to systemd.

    They replace the handlers of Twisted. Only the main thread can install them.
    """

    name = "signals"
    log = Logger()

    def __init__(
        self,
        balancer: BalancerService,
        reactor: Any,
        notifier: SystemdNotifier,
        pid_file: PidFile | None = None,
        program_log: ProgramLog | None = None,
    ) -> None:
        """
        Args:
            balancer: the service that is drained, reloaded and restarted.
            reactor: the reactor; it is stopped at the end of a graceful shutdown.
            notifier: the connection to systemd.
            pid_file: the pid file that a hot restart moves aside.
            program_log: the log of the process, if its file is to be reopened.
        """
        self._balancer = balancer
        self._reactor = reactor
        self._notifier = notifier
        self._previous_handlers: dict[int, Any] = {}
        self._pid_file = pid_file or PidFile({})
        self._program_log = program_log
        self._draining = self._reactor_stopped = False
        # Whether the new process of a hot restart runs.
        self._new_process_running = False

    def startService(self) -> None:
        super().startService()
        # Twisted installs its own handlers when the reactor starts.
        self._reactor.callWhenRunning(self._install_handlers)

    def _install_handlers(self) -> None:
        if not self.running or threading.current_thread() is not threading.main_thread():
            return
        for number, callback in (
            (signal.SIGTERM, self.graceful_shutdown),
            (signal.SIGINT, self.graceful_shutdown),
            (signal.SIGHUP, self.reload),
            (signal.SIGUSR1, self.reopen_logs),
            (signal.SIGUSR2, self.hot_restart),
        ):
            self._previous_handlers[number] = signal.signal(number, self._make_handler(callback))
        self._notifier.ready()
        stop_old_process()
        self._balancer.listeners.own_socket_files()

    def _make_handler(self, callback: Callable[[], None]) -> Callable[[int, Any], None]:
        # A handler may interrupt any code, so it only schedules the callback.
        return lambda number, frame: self._reactor.callFromThread(callback)

    def stopService(self) -> Any:
        self._pid_file.release()
        handlers, self._previous_handlers = self._previous_handlers, {}
        if self._draining and handlers:
            # The process is about to exit with status 0. A further signal would find
            # the default handlers, and the exit status would be that of a killed process.
            signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return super().stopService()

    def graceful_shutdown(self) -> None:
        """Drain and exit; a second call exits immediately."""
        if self._draining:
            self.log.info("exiting immediately")
            self._stop_reactor()
            return
        self._draining = True
        self.log.info("draining; send the signal again to exit immediately")
        if self._new_process_running:
            # systemd follows the new process, which also owns the socket files now.
            self._balancer.listeners.disown_socket_files()
        else:
            self._notifier.stopping()
        self._balancer.drain(self._new_process_running).addCallback(
            lambda _: self._stop_reactor()
        ).addErrback(lambda failure: self.log.failure("drain failed", failure))

    def _stop_reactor(self) -> None:
        if self._reactor.running and self.running and not self._reactor_stopped:
            self._reactor_stopped = True
            self._reactor.stop()

    def reload(self) -> None:
        """Reload the configuration; problems are logged by the balancer."""
        if self._draining:
            self.log.info("reload rejected: draining")
            return
        self._notifier.reloading()
        status = "Balancing; the last reload was rejected."
        try:
            self._balancer.reload()
            status = "Balancing."
        except ConfigError:
            # BalancerService.reload has logged every problem.
            pass
        finally:
            self._notifier.ready(status)

    def reopen_logs(self) -> None:
        """Open the access logs and the log of the process again, after rotation."""
        self._balancer.access_logs.reopen()
        if self._program_log is not None:
            self._program_log.reopen()
        self.log.info("log files reopened")

    def hot_restart(self) -> None:
        """Start a new process, which stops this one when it is ready."""
        if self._draining or self._new_process_running:
            self.log.info("hot restart ignored: already restarting or shutting down")
            return
        sockets, not_transferable = self._balancer.listeners.export_sockets()
        if not_transferable:
            self.log.error(
                "hot restart rejected: listening sockets cannot be transferred: {addresses}",
                addresses=", ".join(not_transferable),
            )
            return
        self.log.info(
            "hot restart: starting a new process with the listening sockets {addresses}",
            addresses=", ".join(sockets),
        )
        self._new_process_running = True
        try:
            self._pid_file.move_aside()
            spawn_new_process(sockets, self._reactor, self._new_process_exited)
        except OSError as error:
            self._hot_restart_failed(error)

    def _new_process_exited(self, reason: str) -> None:
        if self._draining:
            # The new process was ready, and the pid file has been its own since: another
            # start may have written it by now.
            self.log.info("the new process exited: {reason}; still draining", reason=reason)
        else:
            self._hot_restart_failed(f"the new process exited: {reason}")

    def _hot_restart_failed(self, reason: object) -> None:
        """Continue as before the hot restart."""
        self.log.error("hot restart failed: {reason}", reason=reason)
        self._new_process_running = False
        try:
            self._pid_file.restore()
        except OSError as error:
            self.log.error("cannot restore the pid file: {reason}", reason=error)
