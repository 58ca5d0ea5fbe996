"""The connection log: an event in the program's log for every closed TCP connection."""

from __future__ import annotations

from typing import Any, Callable

from twisted.logger import Logger

from balancebeam.observability.access_log_records import TcpRecord
from balancebeam.proxy.rejected import RejectedRequest


class ConnectionLog:
    """
    Logs client, server, reason, bytes in both directions and duration of TCP connections.

    Every value is also a key of the event, for log observers that write JSON.
    """

    log = Logger()

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Create the log.

        Args:
            clock: Returns the time of the reactor in seconds.
        """
        self._clock = clock

    # `Any` because the dispatcher notifies observers with the base class of exchanges.
    # Only TCP frontends have this observer, so the exchange is a `TcpRecord`.
    def exchange_finished(self, exchange: Any) -> None:
        """Log a closed connection."""
        record: TcpRecord = exchange
        self.log.info(
            "{client} -> {server}: {close_reason}; {bytes_received} bytes from client, "
            "{bytes_sent} bytes from server, {duration:.3f} s",
            client=record.client,
            server=record.server_name or "no server",
            close_reason=record.close_reason,
            bytes_received=record.bytes_from_client,
            bytes_sent=record.bytes_from_server,
            duration=self._clock() - record.started_at,
        )

    def request_rejected(self, request: RejectedRequest) -> None:
        """Do nothing: TCP connections have no requests to parse."""
