"""The service that says who is admitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable
from typing import Protocol as Interface

from twisted.application import service
from twisted.logger import Logger

from balancebeam.interfaces import LimitedRequest
from balancebeam.policy.access import AccessList
from balancebeam.policy.limits.base import Limiter
from balancebeam.policy.limits.limit import Limit, LimitSet, Refusal, refuse
from balancebeam.ticker import Ticker

Held = tuple[tuple[Limiter, bytes], ...]


class Candidate(LimitedRequest, Interface):
    """
    A request that wants to be admitted. `held` is what has to be given back by
    `LimiterService.release` when it is over.
    """

    client: str
    held: Held


class LimiterService(service.Service):
    """
    Asks an access list and all limits, and tells the log what those on trial
    would have refused.

    `clock` gives seconds, and never runs backwards.
    """

    name = "limiter"
    _log = Logger()

    def __init__(
        self,
        limits: Sequence[Limit],
        access: AccessList,
        ticker: Ticker,
        clock: Callable[[], float],
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
        # How many refusals of each limit on trial the log knows of.
        self._logged = [0] * len(limits)
        ticker.add(self.sweep)

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

    def sweep(self, _: float) -> Any:
        """Give back memory, and say what limits on trial would have done."""
        now = self._clock()
        for number, limit in enumerate(self.limits):
            limit.limiter.tidy(now)
            if limit.settings.dry_run and limit.refused > self._logged[number]:
                more = limit.refused - self._logged[number]
                self._logged[number] = limit.refused
                self._log.info(
                    "the limit {name!r}, on trial, would have refused {more} requests",
                    name=limit.settings.title,
                    more=more,
                )


def _is_simple(limit: Limit) -> bool:
    return not limit.settings.dry_run and not limit.concurrent
