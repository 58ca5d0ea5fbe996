"""Telling the service manager how it goes, as sd_notify(3) does."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from twisted.logger import Logger

log = Logger()


class SystemdNotifier:
    """
    The service manager, if the environment names the socket by which it wants
    to hear. Messages are short and the socket is local, so sending one at once
    keeps nobody waiting.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._path = environment.get("NOTIFY_SOCKET", "")

    def notify(self, *lines: str) -> None:
        """Send `lines`, such as "READY=1"; that nobody listens is only logged."""
        if not self._path:
            return
        # One in the abstract namespace begins with a NUL.
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto("\n".join(lines).encode(), path)
        except OSError as failure:
            log.warn("the service manager was not told: {reason}", reason=failure)

    def ready(self, status: str = "Balancing.") -> None:
        """Clients can come, now or again. The manager watches this process."""
        self.notify("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again."""
        # What CLOCK_MONOTONIC says, in microseconds.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.notify("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """No other clients can come."""
        self.notify("STOPPING=1", "STATUS=Waiting for the last clients.")
