"""An open file, or stdout, that is written to without ever waiting."""

from __future__ import annotations

import contextlib
import os
import select
import stat

STDOUT = "-"

UNREAD = "nobody reads it"

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

# Pipes take so many octets at once, or say that they do not.
_PORTION = select.PIPE_BUF


class Outlet:
    """The end of the file at `path`, or stdout if that is "-". Raises `OSError`."""

    def __init__(self, path: str) -> None:
        if path == STDOUT:
            self._descriptor = os.dup(1)
        else:
            # Without O_NONBLOCK a named pipe would wait for who reads it.
            self._descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, 0o640)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, data: bytes) -> tuple[int, str]:
        """How many octets of `data` were taken, and why it is not all of them, or ""."""
        rest = memoryview(data)
        why = ""
        try:
            while rest and not why:
                # Stdout belongs to others as well, so it is not made non-blocking.
                if self._is_file:
                    rest = rest[os.write(self._descriptor, rest) :]
                elif self._is_ready():
                    rest = rest[os.write(self._descriptor, rest[:_PORTION]) :]
                else:
                    why = UNREAD
        except BlockingIOError:
            why = UNREAD
        except OSError as error:
            why = in_words(error)
        return len(data) - len(rest), why

    def _is_ready(self) -> bool:
        """Whether a portion can be written without waiting, or fail at once."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Write no more."""
        # What was written late may only be refused here.
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def in_words(error: Exception) -> str:
    """The reason as the operating system gives it, to follow a colon."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"
