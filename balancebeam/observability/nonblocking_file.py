"""An open file, or stdout, that is written to without ever waiting."""

from __future__ import annotations

import contextlib
import os
import select
import stat

STDOUT = "-"

NO_READER = "nobody reads it"

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

# Pipes take so many octets at once, or say that they do not.
_MAX_PIPE_WRITE = select.PIPE_BUF


class NonBlockingFile:
    """The end of the file at `path`, or stdout if that is "-". Raises `OSError`."""

    def __init__(self, path: str) -> None:
        if path == STDOUT:
            self._descriptor = os.dup(1)
        else:
            # Without O_NONBLOCK a named pipe would wait for who reads it.
            self._descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, 0o640)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, data: bytes) -> tuple[int, str]:
        """How many octets of `data` were taken, and reason it is not all of them, or ""."""
        rest = memoryview(data)
        reason = ""
        try:
            while rest and not reason:
                # Stdout belongs to others as well, so it is not made non-blocking.
                if self._is_file:
                    rest = rest[os.write(self._descriptor, rest) :]
                elif self._is_writable():
                    rest = rest[os.write(self._descriptor, rest[:_MAX_PIPE_WRITE]) :]
                else:
                    reason = NO_READER
        except BlockingIOError:
            reason = NO_READER
        except OSError as error:
            reason = describe_os_error(error)
        return len(data) - len(rest), reason

    def _is_writable(self) -> bool:
        """Whether a portion can be written without waiting, or fail at once."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Write no more."""
        # What was written late may only be refused here.
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def describe_os_error(error: Exception) -> str:
    """The reason as the operating system gives it, to follow a colon."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"
