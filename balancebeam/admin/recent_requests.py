"""`GET /requests`: recent requests, the failed ones and the slowest ones."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from balancebeam.admin.parsing import AdminError
from balancebeam.observability.recent_requests import (
    MAX_FAILED,
    MAX_RECENT,
    MAX_SLOW,
    RecentRequests,
)

# The query parameters; none is required.
PARAMETERS = ("id", "failed", "slow", "limit")

# A page of a terminal or a browser.
DEFAULT_LIMIT = 100
MAX_LIMIT = MAX_RECENT + MAX_FAILED + MAX_SLOW

_FLAGS = {"1": True, "0": False}


def list_requests(requests: RecentRequests, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """
    Return the requests that the query parameters select.

    Args:
        requests: The requests that are kept.
        query: The query parameters, see `PARAMETERS`.

    Raises:
        AdminError: A parameter is invalid.
    """
    failed, slow = (_parse_flag(name, query.get(name, "0")) for name in ("failed", "slow"))
    limit = query.get("limit", str(DEFAULT_LIMIT))
    # Python reads digits of other scripts, underscores and signs too.
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_LIMIT))
    if not is_number or not 1 <= int(limit) <= MAX_LIMIT:
        raise AdminError(
            400, f"invalid limit {reprlib.repr(limit)}: expected an integer from 1 to {MAX_LIMIT}"
        )
    return requests.select(query.get("id"), failed, slow, int(limit))


def _parse_flag(name: str, text: str) -> bool:
    if text not in _FLAGS:
        raise AdminError(400, f"invalid {name} {reprlib.repr(text)}: expected 1 or 0")
    return _FLAGS[text]
