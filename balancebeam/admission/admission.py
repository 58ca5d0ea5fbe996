"""TODO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable
from typing import Protocol as Interface

from balancebeam.admission.access_list import AccessList
from balancebeam.ratelimit.base import Limiter
from balancebeam.ratelimit.interfaces import LimitedRequest
from balancebeam.ratelimit.limit import Limit, LimitSet, Refusal, refuse

Held = tuple[tuple[Limiter, bytes], ...]


# Limits by what they are about, such as "frontend web".
Scopes = Mapping[str, tuple[Limit, ...]]


class Candidate(LimitedRequest, Interface):
    """
    A request that wants to be admitted. `held` is what has to be given back by
    `Gate.release` when it is over.
    """

    client: str
    held: Held


class Gate:
    """
    Asks an access list and all of `limits` about a request. One that is `idle`
    admits everybody, and need not be asked.

    `clock` gives seconds, and never runs backwards.
    """

    def __init__(
        self, limits: Sequence[Limit], access: AccessList, clock: Callable[[], float]
    ) -> None:
        self.limits = tuple(limits)
        self._access = access
        self._clock = clock
        self._set = LimitSet(limits)
        self.idle = not limits and access.everybody
        # One limit, and nothing else to ask, is what most have.
        self._only = limits[0] if len(limits) == 1 and _is_simple(limits[0]) else None
        if not access.everybody:
            self._only = None

    def admit(self, request: Candidate) -> Refusal | None:
        """Why `request` may not be made now, if it may not."""
        limit = self._only
        if limit is None:
            return self._admit(request)
        key = limit.key(request)
        now = self._clock()
        if key is None or limit.limiter.admit(key, now):
            return None
        limit.refused += 1
        return refuse((limit,), ((limit, limit.limiter.wait(key, now)),))

    def _admit(self, request: Candidate) -> Refusal | None:
        if not self._access.admits(request.client):
            return Refusal(403, "access denied", 0.0)
        outcome = self._set.admit(request, self._clock())
        if isinstance(outcome, Refusal):
            return outcome
        request.held = outcome
        return None

    def release(self, request: Candidate) -> None:
        """`request`, which was admitted, is over."""
        held, request.held = request.held, ()
        for limiter, key in held:
            limiter.release(key)


def _is_simple(limit: Limit) -> bool:
    return not limit.settings.dry_run and not limit.concurrent
