"""Ids of requests in logs, for requests without X-Request-Id."""

from __future__ import annotations

import secrets

from balancebeam.observability.access_log_records import header_value

# Random, so that ids of different processes and starts differ.
ID_PREFIX = secrets.token_hex(5)


def made_id(received_at: float) -> str:
    """
    Return the id of the request that was received at this time.

    No two requests of a process are received in the same nanosecond. So an id needs no
    state, and all logs compute the same one.

    Args:
        received_at: Monotonic seconds, see `Exchange.received_at`.
    """
    return f"{ID_PREFIX}{int(received_at * 1e9)}"


def sent_id(upstream_head: bytes) -> str | None:
    """Return X-Request-Id in the head of a request to a server; `None` without one."""
    value = header_value(upstream_head, upstream_head.lower(), b"\r\nx-request-id:")
    return value.decode("utf-8", "backslashreplace") if value else None
