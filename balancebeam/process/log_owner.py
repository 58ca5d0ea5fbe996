"""
Owner of the log files of a process that drops privileges (`twistd --uid`).

The files are opened by root. Afterwards the process can only open them again (reload,
hot restart) if they belong to its user, so their owner is changed, as nginx does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from balancebeam.core.errors import describe_os_error
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.nonblocking_file import STDOUT

log = Logger()


class LogOwner:
    """The user that `twistd` switches to, as the owner of log files."""

    def __init__(self, twistd_options: Mapping[str, Any]) -> None:
        """
        Args:
            twistd_options: the options of `twistd`, of which `uid` is used; it must be set.
        """
        self._uid: int = twistd_options["uid"]

    def take_over(self, files: Iterable[LogFile]) -> None:
        """Change the owner of the open `files`, before privileges are dropped."""
        for file in files:
            try:
                file.set_owner(self._uid)
            except OSError as error:
                log.warn(
                    "cannot change the owner of log file {path} to user {uid}: {reason}",
                    path=file.path,
                    uid=self._uid,
                    reason=describe_os_error(error),
                )

    def check(self, paths: Iterable[str]) -> None:
        """Warn of the files that cannot be opened again, after privileges were dropped."""
        for path in paths:
            if path == STDOUT or (os.path.exists(path) and not os.path.isfile(path)):
                # Not rotated: stdout, a pipe or a device.
                continue
            directory = os.path.dirname(path) or "."
            if not _is_allowed(path, os.W_OK):
                log.warn(
                    "log file {path} cannot be reopened by user {uid}: permission denied; "
                    "after log rotation lines still go to the old file",
                    path=path,
                    uid=self._uid,
                )
            elif not _is_allowed(directory, os.W_OK | os.X_OK):
                log.warn(
                    "log file {path} cannot be created by user {uid}: no write permission for "
                    "{directory}; log rotation has to create it for this user",
                    path=path,
                    uid=self._uid,
                    directory=directory,
                )


def _is_allowed(path: str, mode: int) -> bool:
    """Whether the effective user may access `path`, as `os.access`."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
