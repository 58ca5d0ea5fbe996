"""A file, a pipe or stdout, appended to without blocking."""

from __future__ import annotations

import contextlib
import os
import select
import stat

from balancebeam.core.errors import describe_os_error

STDOUT = "-"

# The reason for an incomplete write to a pipe whose buffer is full.
PIPE_FULL = "pipe full"

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

# POSIX: a write of at most PIPE_BUF bytes to a pipe is atomic. It is taken as a whole
# if poll() reports the pipe as writable, so it does not block.
_MAX_PIPE_WRITE = select.PIPE_BUF


class NonBlockingFile:
    """An open file that is only appended to."""

    def __init__(self, path: str) -> None:
        """Open the file at `path`, or stdout if it is "-". Raises `OSError`."""
        self._path = path
        if path == STDOUT:
            self._descriptor = os.dup(1)
        else:
            # Without O_NONBLOCK, opening a named pipe blocks until it has a reader.
            self._descriptor = os.open(path, _FLAGS | os.O_NONBLOCK, 0o640)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, data: bytes) -> tuple[int, str]:
        """
        Write as much of `data` as is possible without blocking.

        Returns:
            The number of bytes written, and why it is not all of them: "" or an
            error text.
        """
        rest = memoryview(data)
        reason = ""
        try:
            while rest and not reason:
                # Stdout is polled instead of made non-blocking: O_NONBLOCK would apply
                # to all processes that share it.
                if self._is_file:
                    rest = rest[os.write(self._descriptor, rest) :]
                elif self._is_writable():
                    rest = rest[os.write(self._descriptor, rest[:_MAX_PIPE_WRITE]) :]
                else:
                    reason = PIPE_FULL
        except BlockingIOError:
            reason = PIPE_FULL
        except OSError as error:
            reason = describe_os_error(error)
        return len(data) - len(rest), reason

    def _is_writable(self) -> bool:
        """Whether a write of `_MAX_PIPE_WRITE` bytes succeeds or fails without blocking."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))

    def set_owner(self, uid: int) -> None:
        """
        Make user `uid` the owner, able to write, if this is a regular file. Raises `OSError`.

        The directory may belong to that user: a path that is a symbolic link, or a file
        with further hard links, is left alone, as it may be a file of the system.
        """
        status = os.fstat(self._descriptor)
        if not self._is_file or status.st_uid == uid:
            return
        if status.st_nlink == 1 and os.path.samestat(status, os.lstat(self._path)):
            os.fchown(self._descriptor, uid, -1)
            os.fchmod(self._descriptor, stat.S_IMODE(status.st_mode) | stat.S_IRUSR | stat.S_IWUSR)

    def close(self) -> None:
        """Close the descriptor."""
        # close() reports write errors of file systems that write later (NFS, quota).
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
