"""TODO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable
from typing import Protocol as Interface

from balancebeam.admission.access_list import AccessList
from balancebeam.ratelimit.base import RateLimiter
from balancebeam.ratelimit.interfaces import LimitedRequest
from balancebeam.ratelimit.limit import Limit, LimitSet, Rejection, build_rejection

Permits = tuple[tuple[RateLimiter, bytes], ...]


# Limits by what they are about, such as "frontend web".
LimitsByScope = Mapping[str, tuple[Limit, ...]]


class AdmissionRequest(LimitedRequest, Interface):
    """
    A request that wants to be admitted. `permits` is what has to be given back by
    `Admission.release` when it is over.
    """

    client: str
    permits: Permits


class Admission:
    """
    Asks an access list and all of `limits` about a request. One that is `unrestricted`
    admits everybody, and need not be asked.

    `clock` gives seconds, and never runs backwards.
    """

    def __init__(
        self, limits: Sequence[Limit], access: AccessList, clock: Callable[[], float]
    ) -> None:
        self.limits = tuple(limits)
        self._access_list = access
        self._clock = clock
        self._limit_set = LimitSet(limits)
        self.unrestricted = not limits and access.allows_all
        # One limit, and nothing else to ask, is what most have.
        self._single_limit = limits[0] if len(limits) == 1 and _is_simple(limits[0]) else None
        if not access.allows_all:
            self._single_limit = None

    def admit(self, request: AdmissionRequest) -> Rejection | None:
        """Why `request` may not be made now, if it may not."""
        limit = self._single_limit
        if limit is None:
            return self._admit(request)
        key = limit.key_function(request)
        now = self._clock()
        if key is None or limit.limiter.admit(key, now):
            return None
        limit.rejected += 1
        return build_rejection((limit,), ((limit, limit.limiter.retry_after(key, now)),))

    def _admit(self, request: AdmissionRequest) -> Rejection | None:
        if not self._access_list.allows(request.client):
            return Rejection(403, "access denied", 0.0)
        outcome = self._limit_set.admit(request, self._clock())
        if isinstance(outcome, Rejection):
            return outcome
        request.permits = outcome
        return None

    def release(self, request: AdmissionRequest) -> None:
        """`request`, which was admitted, is over."""
        held, request.permits = request.permits, ()
        for limiter, key in held:
            limiter.release(key)


def _is_simple(limit: Limit) -> bool:
    return not limit.settings.dry_run and not limit.concurrent
