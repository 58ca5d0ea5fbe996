"""
Big transfers without copies: bytes go from socket to socket through a pipe,
by splice(2), and never come into the process.

Only long flows come here; to set up a pipe for less would cost more than it
saves.
"""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Any, Callable

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger

log = Logger()

# Octets that are moved at once, and that a pipe is made to hold. Linux lets a
# user have 64 MiB of pipes before it makes new ones small (pipe(7)).
PIPE_CAPACITY = 256 * 1024

# A flow that brought less than this, so often in a row, is no long one any more.
MIN_BYTES = 4096
MAX_SMALL_READS = 16

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if hasattr(os, "splice") else 0

# fcntl(2) on Linux; Python knows it by name since 3.10.
_F_SETPIPE_SZ = 1031


def can_splice(source: Any, target: Any) -> bool:
    """Whether bytes from the transport `source` can go to `target` that way, right now."""
    return (
        hasattr(os, "splice")
        and getattr(source, "can_splice", False)
        and getattr(target, "can_splice", False)
        and target.nothing_buffered
        and target.connected
    )


class SplicePipe:
    """
    One direction of a flow, from the transport `source` to `target`.

    `on_bytes` is told of octets that came, `on_idle` that the flow has become a thin
    one and the source reads for itself again. Raises `OSError` when there is no
    pipe to be had. The source is not read while the pipe holds anything, so at
    its end, orderly or not, nothing is left behind.
    """

    def __init__(
        self,
        source: Any,
        target: Any,
        on_bytes: Callable[[int], object],
        on_idle: Callable[[], object],
    ) -> None:
        self._source = source
        self._target = target
        self._on_bytes = on_bytes
        self._on_idle = on_idle
        self._buffered = 0
        self._small_reads = 0
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._write_fd, _F_SETPIPE_SZ, PIPE_CAPACITY)
        except OSError as failure:
            log.debug("a pipe stays small: {reason}", reason=failure)
        # In place of what the transports do themselves.
        source.doRead = self.read

    def read(self) -> Any:
        """The source is readable: pass on what it has."""
        try:
            octets = os.splice(self._source.fileno(), self._write_fd, PIPE_CAPACITY, flags=_FLAGS)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not octets:
            return CONNECTION_DONE
        self._buffered += octets
        self._on_bytes(octets)
        if self._flush() is not None or self._buffered:
            # An error is met again, and reported, when the target is written to.
            self._pause()
        elif octets < MIN_BYTES:
            self._small_reads += 1
            if self._small_reads >= MAX_SMALL_READS:
                self.close()
                self._on_idle()
        else:
            self._small_reads = 0
        return None

    def write(self) -> Any:
        """The target, which was waited for, takes something again."""
        reason = self._flush()
        if reason is None and not self._buffered:
            self._resume()
        return reason

    def close(self) -> None:
        """Give the pipe back; what is in it is lost."""
        if self._write_fd < 0:
            return
        if self._buffered and self._target.connected:
            self._resume()
        del self._source.doRead
        os.close(self._write_fd)
        os.close(self._read_fd)
        self._write_fd = self._read_fd = -1

    def _flush(self) -> Any:
        while self._buffered:
            try:
                self._buffered -= os.splice(
                    self._read_fd, self._target.fileno(), self._buffered, flags=_FLAGS
                )
            except BlockingIOError:
                self._uncork()
                return None
            except OSError:
                return CONNECTION_LOST
        return None

    def _uncork(self) -> None:
        """
        Have the target send all it has. splice(2) corks when there is more in
        the pipe; if that does not fit, the last segment would stay behind until
        a probe timer finds it, which takes longer and longer.
        """
        if self._target.socket.family != socket.AF_UNIX:
            self._target.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _pause(self) -> None:
        self._source.pauseProducing()
        self._target.doWrite = self.write
        self._target.startWriting()

    def _resume(self) -> None:
        del self._target.doWrite
        self._target.stopWriting()
        self._source.resumeProducing()
