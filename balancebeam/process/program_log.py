"""
The program's own log: its format, its destination, and its reopening after rotation.

`twistd` uses the `ILogObserver` component of an application as its log observer, so the
destination follows `twistd --logfile`. With `--logger` or `--syslog` `twistd` formats and
writes the log itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    formatEventAsClassicLogText,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from balancebeam.core.errors import ConfigError, describe_os_error
from balancebeam.observability.program_log_format import format_json_event

# The file of a daemon without `--logfile`, as `twistd` names it.
_DEFAULT_FILE = "twistd.log"

_STDOUT = "-"


class ProgramLog:
    """
    The log of a `twistd` process.

    Attributes:
        file: The log file; `None` if the log goes to stdout, or before `attach`.
    """

    _log = Logger()

    def __init__(self, twistd_options: Mapping[str, Any], log_format: Callable[[], str]) -> None:
        """
        Args:
            twistd_options: the options of `twistd`, of which `logger`, `syslog`, `logfile` and
                `nodaemon` are used.
            log_format: returns "text" or "json", for each event, so that a reload changes it.
        """
        self._options = twistd_options
        self._log_format = log_format
        self.file: LogFile | None = None

    def attach(self, application: Componentized) -> None:
        """
        Open the destination, and make it the log observer of `application`.

        Raises:
            ConfigError: the log file cannot be opened.
        """
        options = self._options
        if options.get("logger") or options.get("syslog"):
            return
        path = options.get("logfile") or ""
        if path == _STDOUT and not options.get("nodaemon"):
            # `twistd` rejects it.
            return
        destination: Any = sys.stdout
        if path != _STDOUT and (path or not options.get("nodaemon")):
            destination = self.file = _open(path or _DEFAULT_FILE)
        application.setComponent(ILogObserver, FileLogObserver(destination, self._format))

    def _format(self, event: LogEvent) -> str | None:
        if self._log_format() == "json":
            return format_json_event(event)
        return formatEventAsClassicLogText(event)

    def reopen(self) -> None:
        """Open the path of the log file again, after rotation; on failure keep the old file."""
        file = self.file
        if file is None:
            return
        try:
            # `LogFile.reopen` closes the old file first, and could not go back to it.
            with open(file.path, "ab"):
                pass
            file.reopen()
        except OSError as error:
            self._log.error(
                "cannot reopen log file {path}: {reason}; still writing to the old file",
                path=file.path,
                reason=describe_os_error(error),
            )


def _open(path: str) -> LogFile:
    try:
        file: LogFile = LogFile.fromFullPath(path)
    except OSError as error:
        raise ConfigError(
            f"--logfile {path}: {describe_os_error(error)}: expected a file that can be written"
        ) from error
    return file
