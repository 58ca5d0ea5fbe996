"""TODO."""

from __future__ import annotations

from typing import Any, Protocol


class StreamTransport(Protocol):
    """
    What the doors and the connections to servers use of a transport.

    Of our own transports: `nothing_buffered` tells that everything written so far is
    out, and `unacked_bytes` is a number that is 0 when the peer has all, and
    changes whenever it takes something.
    """

    nothing_buffered: bool

    def unacked_bytes(self) -> int: ...

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def loseWriteConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def getHost(self) -> Any: ...

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def setTcpKeepAlive(self, enabled: bool) -> None: ...
