"""
Zero-copy transfer between two sockets through a pipe, by splice(2) (Linux).

For long flows only: to create a pipe for less costs more than the copies.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger

from balancebeam.net.transport import DirectWriteMixin

log = Logger()

# Capacity of a pipe, and the most that one call moves, in bytes. Linux lets a user
# have 64 MiB of pipes (256 of these) before it makes new ones small (pipe(7)).
PIPE_CAPACITY = 256 * 1024

# A flow is not spliced any more after `MAX_SMALL_READS` reads in a row of less than
# `MIN_BYTES` each. HAProxy splices no less than 4096 bytes (MIN_SPLICE_FORWARD).
MIN_BYTES = 4096
MAX_SMALL_READS = 16

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if hasattr(os, "splice") else 0

# fcntl(2) on Linux; a name in `fcntl` since Python 3.10.
_F_SETPIPE_SZ = 1031


def can_splice(source: Any, target: Any) -> bool:
    """Whether a `SplicePipe` can be set up from transport `source` to `target` now."""
    return (
        hasattr(os, "splice")
        and isinstance(source, DirectWriteMixin)
        and isinstance(target, DirectWriteMixin)
        and target.nothing_buffered
        and bool(target.connected)
    )


class SplicePipe:
    """
    One direction of a flow between two transports for which `can_splice` holds.

    The source is paused while the pipe holds bytes, so when it ends or is reset,
    none are left behind.

    The methods `doRead` of the source and `doWrite` of the target are replaced by
    instance attributes: the first from creation to `close`, the second while the
    pipe is not empty. That is free for the poller, while a test in `doRead` would
    cost 4 ns (CPython 3.11) in each read of every connection, spliced or not.

    Args:
        source: the transport to read from.
        target: the transport to write to.
        on_bytes: called with the number of bytes of each read.
        on_idle: called after `close` when reads have become small (`MIN_BYTES`).

    Raises:
        OSError: no pipe could be created.
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
            log.debug("pipe not enlarged: {reason}", reason=failure)
        source.doRead = self.read

    def read(self) -> ConnectionLost | ConnectionDone | None:
        """Move received bytes into the pipe, and on to the target (`doRead` of the source)."""
        try:
            received = os.splice(self._source.fileno(), self._write_fd, PIPE_CAPACITY, flags=_FLAGS)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not received:
            return CONNECTION_DONE
        self._buffered += received
        self._source.bytes_received += received
        self._on_bytes(received)
        if self._flush() is not None or self._buffered:
            # `write` will meet and report the same error.
            self._pause()
        elif received < MIN_BYTES:
            self._small_reads += 1
            if self._small_reads >= MAX_SMALL_READS:
                self.close()
                self._on_idle()
        else:
            self._small_reads = 0
        return None

    def write(self) -> ConnectionLost | None:
        """Empty the pipe, and resume the source if that succeeds (`doWrite` of the target)."""
        reason = self._flush()
        if reason is None and not self._buffered:
            self._resume()
        return reason

    def close(self) -> None:
        """Close the pipe and restore the transports' methods; buffered bytes are lost."""
        if self._write_fd < 0:
            return
        if self._buffered and self._target.connected:
            self._resume()
        del self._source.doRead
        os.close(self._write_fd)
        os.close(self._read_fd)
        self._write_fd = self._read_fd = -1

    def _flush(self) -> ConnectionLost | None:
        """Move bytes from the pipe to the target until it is empty or the socket is full."""
        while self._buffered:
            try:
                sent = os.splice(self._read_fd, self._target.fileno(), self._buffered, flags=_FLAGS)
            except BlockingIOError:
                self._uncork()
                return None
            except OSError:
                return CONNECTION_LOST
            self._buffered -= sent
            self._target.bytes_sent += sent
        return None

    def _uncork(self) -> None:
        """
        Make the kernel send the last, partial segment.

        splice(2) corks the socket while the pipe holds more. If that does not fit,
        the segment would wait for a probe timer, with intervals that grow.
        Setting TCP_NODELAY sends pending data.
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
