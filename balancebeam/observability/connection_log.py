"""A line in the log for every TCP connection that has ended."""

from __future__ import annotations

from typing import Any, Callable

from twisted.logger import Logger


class ConnectionLog:
    """
    Says who was connected to which server, why that ended, the octets each way
    and how long it lasted. `clock` gives seconds. All of it is in the event as
    well, for observers that write JSON.
    """

    log = Logger()

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def exchange_finished(self, exchange: Any) -> None:
        """`exchange` is over, one way or another."""
        self.log.info(
            "{client} -> {server}: {close_reason}; {bytes_received} bytes from client, "
            "{bytes_sent} bytes from server, {duration:.3f} s",
            client=exchange.client,
            server=exchange.server_name or "no server",
            close_reason=exchange.close_reason,
            bytes_received=exchange.bytes_from_client,
            bytes_sent=exchange.bytes_from_server,
            duration=self._clock() - exchange.started_at,
        )

    def request_rejected(self, request: Any) -> None:
        """Not of TCP, where nothing has to be read."""
