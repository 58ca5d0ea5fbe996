"""The pid file of `twistd` during a hot restart."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any


class PidFile:
    """
    The pid file that `twistd` writes at start and removes at exit.

    During a hot restart it is renamed to `PATH.old`, as nginx does, because the
    new process writes its own file at `PATH`. The next hot restart replaces `PATH.old`, even if
    the process that it names still drains.
    """

    def __init__(self, twistd_options: MutableMapping[str, Any]) -> None:
        """
        Args:
            twistd_options: the options of `twistd`; it removes the file that
                `pidfile` names at exit, so that key follows the renaming.
        """
        self._options = twistd_options
        self._path: str = twistd_options.get("pidfile") or ""

    def move_aside(self) -> None:
        """Rename the file to `PATH.old`. Raises `OSError`."""
        if self._path:
            old_path = f"{self._path}.old"
            os.replace(self._path, old_path)
            self._options["pidfile"] = old_path

    def restore(self) -> None:
        """Undo `move_aside`, because the new process has exited. Raises `OSError`."""
        if self._path and self._options["pidfile"] != self._path:
            os.replace(self._options["pidfile"], self._path)
            self._options["pidfile"] = self._path

    def release(self) -> None:
        """
        Keep `twistd` from removing the file at exit if it is missing or names another process.

        Several hot restarts within one drain use the same `PATH.old`.
        """
        path = self._options.get("pidfile")
        if not path:
            return
        try:
            with open(path, "rb") as file:
                own = file.read(32).strip() == b"%d" % os.getpid()
        except FileNotFoundError:
            own = False
        except OSError:
            # Written before privileges were dropped: only twistd can find out at exit
            # whether it can be removed.
            own = True
        if not own:
            self._options["pidfile"] = ""
