"""A line in a file for every request, or TCP connection, that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import FrontendSettings
from balancebeam.net.ticker import Ticker
from balancebeam.observability.access_log_formats import (
    Clock,
    LineFormatter,
    LogFormat,
    build_format,
)
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.nonblocking_file import describe_os_error

# Seconds from one flush to the next, less what a timer may be early.
_FLUSH_INTERVAL = 0.95


class AccessLog:
    """The observer of one frontend; its file and its format may change."""

    _log = Logger()

    def __init__(self, file: LogFile, log_format: LogFormat) -> None:
        self.reconfigure(file, log_format)

    def reconfigure(self, file: LogFile, log_format: LogFormat) -> None:
        """Write these lines to this file from now on."""
        self._file = file
        self._format = log_format

    def exchange_finished(self, exchange: Any) -> None:
        """`exchange` is over, one way or another. Raises nothing."""
        self._write(self._format.finished, exchange)

    def request_rejected(self, request: Any) -> None:
        """`request` could not be read. Raises nothing."""
        self._write(self._format.rejected, request)

    def _write(self, formatter: LineFormatter, record: Any) -> None:
        try:
            line = formatter(record)
        except Exception:
            # The client still waits for what comes after this.
            self._log.failure("no line can be made of a request")
        else:
            self._file.write(line)


class AccessLogs(service.Service):
    """
    The files of all frontends that want a log, each opened once.

    `clock` gives seconds since the epoch.
    """

    name = "access-logs"

    def __init__(self, ticker: Ticker, clock: Clock) -> None:
        self.files: dict[str, LogFile] = {}
        self._logs: dict[tuple[str, str], AccessLog] = {}
        self._clock = clock
        self._last_flush = 0.0
        ticker.add(self._flush)

    def prepare(self, frontends: Iterable[FrontendSettings]) -> dict[str, LogFile]:
        """
        The files that they write to; those that are new are opened if the
        balancer runs. Raises `ConfigError`, and then keeps none of them.
        """
        paths = {one.access_log for one in frontends if one.access_log is not None}
        files = {path: self.files.get(path) or LogFile(path) for path in sorted(paths)}
        if self.running:
            _open(files.values())
        return files

    def open(self) -> None:
        """Open all files. Raises `ConfigError`, and then none is open that was not."""
        _open(self.files.values())

    def rollback(self, files: Mapping[str, LogFile]) -> None:
        """What was planned does not happen."""
        for path, file in files.items():
            if path not in self.files:
                file.close()

    def commit(self, frontends: Iterable[FrontendSettings], files: Mapping[str, LogFile]) -> None:
        """Write what was planned from now on, to what is at each path by now."""
        before, self.files = self.files, dict(files)
        for path, file in before.items():
            if path in files:
                file.reopen()
            else:
                file.close()
        logs, self._logs = self._logs, {}
        for frontend in frontends:
            if frontend.access_log is None:
                continue
            key, file = (frontend.name, frontend.mode), files[frontend.access_log]
            style = frontend.access_log_format
            lines = build_format(frontend.mode, style, frontend.name, self._clock)
            # Requests in progress have the observer that they began with.
            known = logs.get(key)
            if known is None:
                known = AccessLog(file, lines)
            else:
                known.reconfigure(file, lines)
            self._logs[key] = known

    def observer(self, frontend: FrontendSettings) -> AccessLog | None:
        """Who is told of what ends there."""
        return self._logs.get((frontend.name, frontend.mode))

    def close(self) -> None:
        """Write what there is, and close all files."""
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
                f"--access-log {file.path}: {describe_os_error(error)}; "
                "give a file that can be written, or -"
            )
        else:
            opened.append(file)
    if problems:
        for file in opened:
            file.close()
        raise ConfigError(*problems)
