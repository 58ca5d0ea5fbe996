"""Admission: an access list and rate limits that a request must pass before dispatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable, Protocol

from balancebeam.admission.access_list import AccessList
from balancebeam.ratelimit.base import RateLimiter
from balancebeam.ratelimit.explanation import LimitExplanation, explain_limits
from balancebeam.ratelimit.interfaces import LimitedRequest
from balancebeam.ratelimit.limit import Limit, LimitSet, Rejection, build_rejection

# The limiters and keys of the concurrency limits that have counted a request.
Permits = tuple[tuple[RateLimiter, bytes], ...]

# The status of the response to a client that the access list denies.
ACCESS_DENIED = 403

# Limits by their scope, such as "frontend web", "pool app".
LimitsByScope = Mapping[str, tuple[Limit, ...]]


class AdmissionRequest(LimitedRequest, Protocol):
    """
    A request that is checked by an `Admission`.

    Attributes:
        client: The client's IP address as text.
        permits: What `Admission.release` gives back when the request is finished.
    """

    client: str
    permits: Permits


class AdmissibleRequest(LimitedRequest, Protocol):
    """A request of which `Admission.explain` explains the admission."""

    @property
    def client(self) -> str:
        """The client's IP address as text."""


class Admission:
    """
    Checks requests against an access list and then against rate limits.

    Attributes:
        limits: The rate limits, in order.
        unrestricted: Whether every request is admitted, so that `admit` need not be
            called.
    """

    def __init__(
        self, limits: Sequence[Limit], access: AccessList, clock: Callable[[], float]
    ) -> None:
        """
        Combine an access list and limits.

        Args:
            limits: The rate limits.
            access: The access list.
            clock: Returns the time in seconds; never runs backwards.
        """
        self.limits = tuple(limits)
        self._access_list = access
        self._clock = clock
        self._limit_set = LimitSet(limits)
        self.unrestricted = not limits and access.allows_all
        # The most common configuration has a fast path: one limit that rejects and
        # has nothing to release, and no access list.
        self._single_limit = limits[0] if len(limits) == 1 and _is_simple(limits[0]) else None
        if not access.allows_all:
            self._single_limit = None

    def admit(self, request: AdmissionRequest) -> Rejection | None:
        """Count the request, and return `None`; or return why it is rejected."""
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
            return Rejection(ACCESS_DENIED, "access denied", 0.0)
        outcome = self._limit_set.admit(request, self._clock())
        if isinstance(outcome, Rejection):
            return outcome
        request.permits = outcome
        return None

    def explain(
        self, request: AdmissibleRequest
    ) -> tuple[tuple[LimitExplanation, ...], int | None]:
        """
        Explain what `admit` would return, without counting the request.

        Returns:
            The limits that apply to the request, and the status of its rejection if there
            is one.
        """
        limits, rejection = explain_limits(self.limits, request, self._clock())
        if not self._access_list.allows(request.client):
            return limits, ACCESS_DENIED
        return limits, None if rejection is None else rejection.status

    def release(self, request: AdmissionRequest) -> None:
        """Give back the permits of an admitted request that is finished."""
        permits, request.permits = request.permits, ()
        for limiter, key in permits:
            limiter.release(key)


def _is_simple(limit: Limit) -> bool:
    """Whether the limit rejects requests, and counts them once and for all."""
    return not limit.settings.dry_run and not limit.concurrent
