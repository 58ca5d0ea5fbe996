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
CAPACITY = 256 * 1024

# A flow that brought less than this, so often in a row, is no long one any more.
SMALL = 4096
SMALL_IN_ROW = 16

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if hasattr(os, "splice") else 0

# fcntl(2) on Linux; Python knows it by name since 3.10.
_F_SETPIPE_SZ = 1031


def can_splice(source: Any, target: Any) -> bool:
    """Whether bytes from the transport `source` can go to `target` that way, right now."""
    return (
        hasattr(os, "splice")
        and getattr(source, "splices", False)
        and getattr(target, "splices", False)
        and target.direct
        and target.connected
    )


class Splice:
    """
    One direction of a flow, from the transport `source` to `target`.

    `count` is told of octets that came, `left` that the flow has become a thin
    one and the source reads for itself again. Raises `OSError` when there is no
    pipe to be had. The source is not read while the pipe holds anything, so at
    its end, orderly or not, nothing is left behind.
    """

    def __init__(
        self,
        source: Any,
        target: Any,
        count: Callable[[int], object],
        left: Callable[[], object],
    ) -> None:
        self._source = source
        self._target = target
        self._count = count
        self._left = left
        self._held = 0
        self._small = 0
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._in, _F_SETPIPE_SZ, CAPACITY)
        except OSError as failure:
            log.debug("a pipe stays small: {why}", why=failure)
        # In place of what the transports do themselves.
        source.doRead = self.read

    def read(self) -> Any:
        """The source is readable: pass on what it has."""
        try:
            octets = os.splice(self._source.fileno(), self._in, CAPACITY, flags=_FLAGS)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not octets:
            return CONNECTION_DONE
        self._held += octets
        self._count(octets)
        if self._push() is not None or self._held:
            # An error is met again, and reported, when the target is written to.
            self._wait()
        elif octets < SMALL:
            self._small += 1
            if self._small >= SMALL_IN_ROW:
                self.close()
                self._left()
        else:
            self._small = 0
        return None

    def write(self) -> Any:
        """The target, which was waited for, takes something again."""
        why = self._push()
        if why is None and not self._held:
            self._go_on()
        return why

    def close(self) -> None:
        """Give the pipe back; what is in it is lost."""
        if self._in < 0:
            return
        if self._held and self._target.connected:
            self._go_on()
        del self._source.doRead
        os.close(self._in)
        os.close(self._out)
        self._in = self._out = -1

    def _push(self) -> Any:
        while self._held:
            try:
                self._held -= os.splice(self._out, self._target.fileno(), self._held, flags=_FLAGS)
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

    def _wait(self) -> None:
        self._source.pauseProducing()
        self._target.doWrite = self.write
        self._target.startWriting()

    def _go_on(self) -> None:
        del self._target.doWrite
        self._target.stopWriting()
        self._source.resumeProducing()
