"""Several limits, asked as one."""

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

_NAME = re.compile(r"[ !#-\[\]-~]+")

ALGORITHMS = ("concurrent", "fixed-window", "sliding-log", "sliding-window", "token-bucket")


@define(eq=False)
class Limit:
    """One limit: what it is, who counts, under which key, and how often it refused."""

    settings: LimitSettings
    limiter: RateLimiter
    key_function: KeyFunction
    rejected: int = 0

    @property
    def concurrent(self) -> bool:
        """Whether what it counted is to be released."""
        return self.settings.algorithm == "concurrent"

    @property
    def policy(self) -> str:
        """As an item of the RateLimit-Policy field."""
        settings = self.settings
        text = f'"{settings.title}";q={settings.requests}'
        if self.concurrent:
            return text + ';qu="concurrent-requests"'
        return f"{text};w={ceil(settings.window)}"


@frozen
class Rejection:
    """
    Why a request is not admitted, and when to come again.

    `delay` is in seconds; `limit` and `policy` are the values of the RateLimit
    and RateLimit-Policy fields (draft-ietf-httpapi-ratelimit-headers-10).
    """

    status: int
    message: str
    delay: float
    limit: str = ""
    policy: str = ""

    @property
    def retry_after(self) -> int:
        """Whole seconds, at least 1, after which one request will be admitted."""
        return max(1, ceil(self.delay))


def build_limit(settings: LimitSettings, max_keys: int = MAX_KEYS) -> Limit:
    """What `settings` say. Raises `ValueError`, saying what would be right."""
    return Limit(
        settings,
        _build_limiter(settings, max_keys),
        build_key_function(settings.key, settings.ipv6_prefix),
    )


def _build_limiter(settings: LimitSettings, max_keys: int) -> RateLimiter:
    requests, per = settings.requests, settings.window
    if requests < 1 or per <= 0 or (settings.burst is not None and settings.burst < 1):
        raise ValueError("a limit allows at least 1 request, and lasts more than 0 seconds")
    if not 400 <= settings.status <= 599:
        raise ValueError(f"{settings.status} is no status of an error; give 400 to 599")
    if _NAME.fullmatch(settings.title) is None:
        # It is sent in a quoted string (RFC 9651, 3.3.3).
        raise ValueError(f"{settings.title!r} is no name for a limit; give letters and digits")
    if settings.algorithm == "sliding-window":
        return SlidingWindow(requests, per, max_keys)
    if settings.algorithm == "fixed-window":
        return FixedWindow(requests, per, max_keys)
    if settings.algorithm == "sliding-log":
        return SlidingLog(requests, per, max_keys)
    if settings.algorithm == "token-bucket":
        return TokenBucket(requests, per, settings.burst, max_keys)
    if settings.algorithm == "concurrent":
        return Concurrent(requests)
    raise ValueError(f"{settings.algorithm!r} limits nothing; give one of {', '.join(ALGORITHMS)}")


def build_rejection(limits: Sequence[Limit], waits: Sequence[tuple[Limit, float]]) -> Rejection:
    """
    The refusal of a request that is under `limits`, of which those in `waits`
    say no: the one that says so for longest is the answer.
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
    )


class LimitSet:
    """
    Limits that are all asked about a request. It is counted by all of them, or
    by none: not even by one that comes before the one which refuses.

    A limit on trial (`dry_run`) refuses nothing, but counts what it would have
    refused.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)

    def admit(
        self, request: LimitedRequest, now: float
    ) -> Rejection | tuple[tuple[RateLimiter, bytes], ...]:
        """
        Why `request` may not be made at `now`, or what is to be released when
        it is over.
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
