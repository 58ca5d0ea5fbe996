"""Ids of requests in logs, for requests without X-Request-Id."""

from __future__ import annotations

import secrets

from balancebeam.observability.access_log_records import header_value

# Random, so that ids of different processes and starts differ.
_PREFIX = secrets.token_hex(5)


def made_id(received_at: float) -> str:
    """
    Return the id of the request that was received at this time: 26 hexadecimal digits.

    No two requests of a process are received in the same nanosecond. So an id needs no
    state, and all logs compute the same one.

    Args:
        received_at: Monotonic seconds, see `Exchange.received_at`.
    """
    return f"{_PREFIX}{int(received_at * 1e9):016x}"


def sent_id(upstream_head: bytes, lower_head: bytes) -> str | None:
    """
    Return X-Request-Id of a request; `None` without one.

    Args:
        upstream_head: The head of the request, as it is sent to a server.
        lower_head: The same in lower case.
    """
    value = header_value(upstream_head, lower_head, b"\r\nx-request-id:")
    return value.decode("utf-8", "backslashreplace") if value else None
