"""Explanations of limits: what they would do with a request, without counting it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from attrs import frozen

from balancebeam.ratelimit.interfaces import LimitedRequest
from balancebeam.ratelimit.keys import describe_key
from balancebeam.ratelimit.limit import Limit, Rejection, build_rejection


@frozen
class LimitExplanation:
    """
    What a limit would do with a request.

    Attributes:
        limit: The limit.
        key: The key of the request, as text.
        remaining: The number of requests with this key that are allowed now.
        retry_after: Whole seconds until a request is allowed, as in Retry-After; 0 if it is
            allowed now.
        refuses: Whether the limit rejects the request; false with `dry_run`.
    """

    limit: Limit
    key: str
    remaining: int
    retry_after: int
    refuses: bool


def explain_limits(
    limits: Sequence[Limit], request: LimitedRequest, now: float
) -> tuple[tuple[LimitExplanation, ...], Rejection | None]:
    """
    Explain what `LimitSet.admit` would return for a request. Nothing is counted.

    Args:
        limits: The limits that the request must pass together.
        request: The request.
        now: The time in seconds.

    Returns:
        The limits that apply to the request, and the rejection if there is one.
    """
    explanations: list[LimitExplanation] = []
    waits: list[tuple[Limit, float]] = []
    for limit in limits:
        key = limit.key_function(request)
        if key is None:
            continue
        settings = limit.settings
        budget = limit.limiter.peek(key, now)
        exceeded = budget.retry_after > 0
        refuses = exceeded and not settings.dry_run
        if refuses:
            waits.append((limit, budget.retry_after))
        explanations.append(
            LimitExplanation(
                limit,
                describe_key(settings.key, settings.ipv6_prefix, request),
                max(0, budget.remaining),
                max(1, ceil(budget.retry_after)) if exceeded else 0,
                refuses,
            )
        )
    return tuple(explanations), build_rejection(limits, waits) if waits else None
