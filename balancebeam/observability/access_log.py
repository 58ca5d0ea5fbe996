"""
Access logs: a line in a file for every finished request or TCP connection.

`AccessLogs` owns the files, of which several frontends may share one. A reload
calls `prepare`, then `commit` or `rollback`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.errors import ConfigError, describe_os_error
from balancebeam.core.settings import FrontendSettings
from balancebeam.net.ticker import Ticker
from balancebeam.observability.access_log_formats import LogFormat, build_format
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.timestamps import Clock
from balancebeam.proxy.rejected import RejectedRequest

# Seconds between flushes: one second, less what a timer may fire early.
_FLUSH_INTERVAL = 0.95


class AccessLog:
    """The observer that writes the access log of one frontend."""

    _log = Logger()

    def __init__(self, file: LogFile, log_format: LogFormat[Any]) -> None:
        self.reconfigure(file, log_format)

    def reconfigure(self, file: LogFile, log_format: LogFormat[Any]) -> None:
        """Write to `file`, in `log_format`, from now on."""
        self._append = file.write
        self._finished = log_format.finished
        self._rejected = log_format.rejected

    # `Any` because the dispatcher notifies observers with the base class of exchanges.
    # `build_format` chooses the format by the mode of the frontend, so an HTTP format
    # gets an `HttpRecord` and a TCP format a `TcpRecord`.
    def exchange_finished(self, exchange: Any) -> None:
        """Write the line of a finished exchange; never raises."""
        try:
            line = self._finished(exchange)
        except Exception:
            self._log_failure()
        else:
            self._append(line)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Write the line of a rejected request; never raises."""
        try:
            line = self._rejected(request)
        except Exception:
            self._log_failure()
        else:
            self._append(line)

    def _log_failure(self) -> None:
        # Not raised: the caller has yet to finish the response and release the server.
        self._log.failure("access log line not written: formatting failed")


class AccessLogs(service.Service):
    """
    The access log files of all frontends, each opened once.

    Attributes:
        files: The files by path.
    """

    name = "access-logs"

    def __init__(self, ticker: Ticker, clock: Clock) -> None:
        """
        Create the service without files.

        Args:
            ticker: Triggers the flushes.
            clock: Returns seconds since the epoch.
        """
        self.files: dict[str, LogFile] = {}
        self._logs: dict[tuple[str, str], AccessLog] = {}
        self._clock = clock
        self._last_flush = 0.0
        ticker.add(self._flush)

    def prepare(self, frontends: Iterable[FrontendSettings]) -> dict[str, LogFile]:
        """
        Open the files of `frontends` that are not open yet, if the service runs.

        Returns:
            The files by path, for `commit` or `rollback`.

        Raises:
            ConfigError: A file cannot be opened; all new files are closed again.
        """
        paths = {frontend.access_log for frontend in frontends if frontend.access_log is not None}
        files = {path: self.files.get(path) or LogFile(path) for path in sorted(paths)}
        if self.running:
            _open(files.values())
        return files

    def reopen(self) -> None:
        """Open the paths of all files again, after log rotation; errors are logged."""
        for file in self.files.values():
            file.reopen()

    def open(self) -> None:
        """Open all files. Raises `ConfigError`; then every file that was closed stays closed."""
        _open(self.files.values())

    def rollback(self, files: Mapping[str, LogFile]) -> None:
        """Close the files that `prepare` has opened."""
        for path, file in files.items():
            if path not in self.files:
                file.close()

    def commit(self, frontends: Iterable[FrontendSettings], files: Mapping[str, LogFile]) -> None:
        """Activate `files` for `frontends`; files in use before are reopened (log rotation)."""
        old_files, self.files = self.files, dict(files)
        for path, file in old_files.items():
            if path in files:
                file.reopen()
            else:
                file.close()
        old_logs, self._logs = self._logs, {}
        for frontend in frontends:
            if frontend.access_log is None:
                continue
            key, file = (frontend.name, frontend.mode), files[frontend.access_log]
            style = frontend.access_log_format
            log_format = build_format(
                frontend.mode,
                style,
                frontend.name,
                self._clock,
                has_request_id=frontend.forwarding.request_id != "off",
            )
            # Kept by a reload: requests in progress hold their observer.
            log = old_logs.get(key)
            if log is None:
                log = AccessLog(file, log_format)
            else:
                log.reconfigure(file, log_format)
            self._logs[key] = log

    def observer(self, frontend: FrontendSettings) -> AccessLog | None:
        """Return the access log of `frontend`; `None` if it has none."""
        return self._logs.get((frontend.name, frontend.mode))

    def close(self) -> None:
        """Flush and close all files."""
        for file in self.files.values():
            file.close()

    def stopService(self) -> Any:
        self.close()
        return super().stopService()

    def _flush(self, now: float) -> None:
        if now - self._last_flush >= _FLUSH_INTERVAL:
            self._last_flush = now
            for file in self.files.values():
                file.flush()


def _open(files: Iterable[LogFile]) -> None:
    opened, problems = [], []
    for file in files:
        if file.is_open:
            continue
        try:
            file.open()
        except (OSError, ValueError) as error:
            problems.append(
                f"--access-log {file.path}: {describe_os_error(error)}: "
                "expected a file that can be written, or -"
            )
        else:
            opened.append(file)
    if problems:
        for file in opened:
            file.close()
        raise ConfigError(*problems)
