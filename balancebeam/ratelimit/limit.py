"""
Limits: a limiter with its settings and its key function, and sets of limits.

The values of RateLimit and RateLimit-Policy follow
draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil

from attrs import define, frozen

from balancebeam.core.settings import LimitSettings
from balancebeam.ratelimit.base import MAX_KEYS, RateLimiter
from balancebeam.ratelimit.concurrency import Concurrent
from balancebeam.ratelimit.interfaces import LimitedRequest
from balancebeam.ratelimit.keys import KeyFunction, build_key_function
from balancebeam.ratelimit.sliding_log import SlidingLog
from balancebeam.ratelimit.token_bucket import TokenBucket
from balancebeam.ratelimit.windows import FixedWindow, SlidingWindow

# The characters of a quoted string without escapes (RFC 9651, 3.3.3).
_NAME = re.compile(r"[ !#-\[\]-~]+")

# Sliding windows of up to so many requests are counted exactly, by a sliding log. Weighting
# the previous window is too coarse for few requests: of 2 per minute, one every 31 s would
# be rejected. A log of 10 takes 80 bytes more than two counters, and each of its decisions
# about 2 µs more.
MAX_EXACT_REQUESTS = 10

ALGORITHMS = ("concurrent", "fixed-window", "sliding-log", "sliding-window", "token-bucket")


@define(eq=False)
class Limit:
    """
    One limit.

    Attributes:
        settings: The limit as configured.
        limiter: Counts the requests.
        key_function: Derives the key of a request.
        rejected: The number of requests over the limit, rejected or (with
            `dry_run`) not.
    """

    settings: LimitSettings
    limiter: RateLimiter
    key_function: KeyFunction
    rejected: int = 0

    @property
    def concurrent(self) -> bool:
        """Whether counted requests have to be released."""
        return self.settings.algorithm == "concurrent"

    @property
    def policy(self) -> str:
        """The item of this limit in the RateLimit-Policy field."""
        settings = self.settings
        text = f'"{settings.title}";q={settings.requests}'
        if self.concurrent:
            return text + ';qu="concurrent-requests"'
        return f"{text};w={ceil(settings.window)}"


@frozen
class Rejection:
    """
    Why a request is not admitted, and when to retry it.

    Attributes:
        status: The status of the response.
        message: The text of the response.
        delay: Seconds until a request is admitted.
        limit: The value of the RateLimit field; empty for access lists.
        policy: The value of the RateLimit-Policy field; empty for access lists.
        name: The name of the limit; empty for access lists.
    """

    status: int
    message: str
    delay: float
    limit: str = ""
    policy: str = ""
    name: str = ""

    @property
    def retry_after(self) -> int:
        """The value of Retry-After: `delay` in whole seconds, at least 1."""
        return max(1, ceil(self.delay))


def build_limit(settings: LimitSettings, max_keys: int = MAX_KEYS) -> Limit:
    """
    Build a limit.

    Args:
        settings: The limit as configured.
        max_keys: The maximum number of keys in memory.

    Raises:
        ValueError: A setting is invalid; the text has the expected form.
    """
    return Limit(
        settings,
        _build_limiter(settings, max_keys),
        build_key_function(settings.key, settings.ipv6_prefix),
    )


def _build_limiter(settings: LimitSettings, max_keys: int) -> RateLimiter:
    requests, window = settings.requests, settings.window
    if requests < 1 or window <= 0 or (settings.burst is not None and settings.burst < 1):
        raise ValueError("invalid limit: expected at least 1 request in more than 0 seconds")
    if not 400 <= settings.status <= 599:
        raise ValueError(f"invalid limit status {settings.status}: expected 400 to 599")
    if _NAME.fullmatch(settings.title) is None:
        # RateLimit fields have the name in a quoted string.
        raise ValueError(f"invalid limit name {settings.title!r}: expected letters and digits")
    if settings.algorithm == "sliding-window" and requests > MAX_EXACT_REQUESTS:
        return SlidingWindow(requests, window, max_keys)
    if settings.algorithm == "fixed-window":
        return FixedWindow(requests, window, max_keys)
    if settings.algorithm in ("sliding-window", "sliding-log"):
        return SlidingLog(requests, window, max_keys)
    if settings.algorithm == "token-bucket":
        return TokenBucket(requests, window, settings.burst, max_keys)
    if settings.algorithm == "concurrent":
        return Concurrent(requests)
    raise ValueError(
        f"invalid limit algorithm {settings.algorithm!r}: expected one of {', '.join(ALGORITHMS)}"
    )


def build_rejection(limits: Sequence[Limit], waits: Sequence[tuple[Limit, float]]) -> Rejection:
    """
    Build the rejection of a request.

    Args:
        limits: The limits that apply to the request, for RateLimit-Policy.
        waits: The limits that reject it, with the seconds until they admit it. The
            longest wait decides the response.
    """
    strictest, wait = max(waits, key=lambda pair: pair[1])
    settings = strictest.settings
    seconds = max(1, ceil(wait))
    return Rejection(
        settings.status,
        settings.message,
        wait,
        f'"{settings.title}";r=0;t={seconds}',
        ", ".join(limit.policy for limit in limits),
        settings.title,
    )


class LimitSet:
    """
    Limits that a request must pass together.

    A request is counted by all of them or by none: the limits before the one that
    rejects it are refunded. A limit with `dry_run` rejects nothing, but counts what
    it would have rejected.

    Attributes:
        limits: The limits, in order.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)

    def admit(
        self, request: LimitedRequest, now: float
    ) -> Rejection | tuple[tuple[RateLimiter, bytes], ...]:
        """
        Count a request, if all limits admit it.

        Args:
            request: The request.
            now: The time in seconds.

        Returns:
            The rejection; or the limiters and keys to release when the request is
            finished, which only concurrency limits have.
        """
        counted: list[tuple[Limit, bytes]] = []
        waits: list[tuple[Limit, float]] = []
        for limit in self.limits:
            key = limit.key_function(request)
            if key is None:
                continue
            if limit.limiter.admit(key, now):
                counted.append((limit, key))
                continue
            limit.rejected += 1
            if not limit.settings.dry_run:
                waits.append((limit, limit.limiter.retry_after(key, now)))
        if waits:
            for limit, key in counted:
                limit.limiter.refund(key)
            return build_rejection(
                [limit for limit in self.limits if not limit.settings.dry_run], waits
            )
        return tuple((limit.limiter, key) for limit, key in counted if limit.concurrent)
