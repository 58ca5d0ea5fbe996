"""Shortage of file descriptors: which errors report it, how many are kept free, one log line."""

from __future__ import annotations

import errno
import os
import resource

from twisted.logger import Logger

# EMFILE: the limit of the process (RLIMIT_NOFILE); ENFILE: that of the system.
SHORTAGE_ERRORS = frozenset((errno.EMFILE, errno.ENFILE))

# Share of the limit that only connections to servers and files may use: 1 / 4. A client
# without a server connection cannot be served, so accepting more would not help it.
RESERVED_PART = 4

# Seconds after which a listener or a connect attempt tries again. HAProxy pauses a
# listener that ran out of descriptors for 100 ms too.
RETRY_INTERVAL = 0.1

# Seconds between two log lines: a shortage lasts, and every connection meets it.
LOG_INTERVAL = 60.0


def is_shortage(error: BaseException | None) -> bool:
    """Whether `error`, an `OSError` or a `ConnectError`, reports a shortage of descriptors."""
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    return number in SHORTAGE_ERRORS


def accept_limit() -> int:
    """Return the descriptor number from which on no client connection is accepted."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - limit // RESERVED_PART


def raise_descriptor_limit() -> int:
    """
    Raise the soft limit of open files to the hard limit.

    Returns:
        The soft limit afterwards.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # macOS reports an unlimited hard limit, and accepts none above kern.maxfilesperproc.
        return soft
    return hard


def can_accept(descriptor: int) -> bool:
    """Whether a connection accepted now would be within `accept_limit`; any open `descriptor`."""
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return False
    # The kernel uses the lowest free number.
    os.close(duplicate)
    return duplicate < accept_limit()


class ShortageLog:
    """Logs a shortage of descriptors at most once per `LOG_INTERVAL`."""

    _log = Logger()

    def __init__(self) -> None:
        self._logged_at: float | None = None

    def report(self, now: float, consequence: str) -> None:
        """
        Log a shortage.

        Args:
            now: the time of the reactor in seconds.
            consequence: what does not happen because of it.
        """
        if self._logged_at is None or abs(now - self._logged_at) >= LOG_INTERVAL:
            self._logged_at = now
            self._log.warn(
                "out of file descriptors (limit {limit}): {consequence} until some are free; "
                "raise the limit (ulimit -Hn) or set max_connections",
                limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                consequence=consequence,
            )


#: The log of this process, whose connections share one limit.
shortage_log = ShortageLog()
