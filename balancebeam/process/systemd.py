"""State notifications to systemd by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from twisted.logger import Logger

log = Logger()


class SystemdNotifier:
    """
    Sends state notifications to the socket that `NOTIFY_SOCKET` names, if it is set.

    Messages are short and the socket is local and non-blocking, so they are sent
    synchronously.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._path = environment.get("NOTIFY_SOCKET", "")

    def notify(self, *lines: str) -> None:
        """Send assignments such as "READY=1"; a failure is only logged."""
        if not self._path:
            return
        # "@" stands for the NUL byte that begins a name in the abstract namespace.
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify_socket:
                notify_socket.setblocking(False)
                notify_socket.sendto("\n".join(lines).encode(), path)
        except OSError as error:
            log.warn("systemd notification failed: {reason}", reason=error)

    def ready(self, status: str = "Balancing.") -> None:
        """Report the end of the start or of a reload; this process becomes the main process."""
        self.notify("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """Report the begin of a reload."""
        # systemd needs the time in microseconds of CLOCK_MONOTONIC, which
        # time.monotonic() does not promise to use.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.notify("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Report the begin of a graceful shutdown."""
        self.notify("STOPPING=1", "STATUS=Draining: waiting for active requests and connections.")
