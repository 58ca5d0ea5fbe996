"""The service that says who is admitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable
from typing import Protocol as Interface

from twisted.application import service
from twisted.logger import Logger

from balancebeam.interfaces import LimitedRequest
from balancebeam.model import LimitSettings
from balancebeam.policy.access import AccessList
from balancebeam.policy.limits.base import Limiter
from balancebeam.policy.limits.limit import Limit, LimitSet, Refusal, make_limit, refuse
from balancebeam.ticker import Ticker

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


class LimiterService(service.Service):
    """
    Keeps all limits, and tells the log what those on trial would have refused.

    A limit that is the same as before keeps its state when others change.
    """

    name = "limiter"
    _log = Logger()

    def __init__(self, ticker: Ticker, clock: Callable[[], float]) -> None:
        self.scopes: Scopes = {}
        self._clock = clock
        # How many refusals of each limit on trial the log knows of.
        self._logged: dict[Limit, int] = {}
        ticker.add(self.sweep)

    @property
    def limits(self) -> Iterable[Limit]:
        """All there are."""
        return (limit for limits in self.scopes.values() for limit in limits)

    def plan(self, wanted: Mapping[str, tuple[LimitSettings, ...]]) -> Scopes:
        """
        The limits that are `wanted`, of which those that are there already are
        the same objects. Raises `ValueError`.
        """
        planned: dict[str, tuple[Limit, ...]] = {}
        for scope, settings in wanted.items():
            kept = list(self.scopes.get(scope, ()))
            limits = []
            for one in settings:
                limit = next((limit for limit in kept if limit.settings == one), None)
                if limit is None:
                    limit = make_limit(one)
                else:
                    kept.remove(limit)
                limits.append(limit)
            planned[scope] = tuple(limits)
        return planned

    def adopt(self, scopes: Scopes) -> None:
        """Have these limits from now on."""
        self.scopes = scopes
        self._logged = {limit: self._logged.get(limit, 0) for limit in self.limits}

    def gate(self, limits: Sequence[Limit], access: AccessList = AccessList()) -> Gate:
        """What asks all of `limits`, and `access` first."""
        return Gate(limits, access, self._clock)

    def sweep(self, _: float) -> Any:
        """Give back memory, and say what limits on trial would have done."""
        now = self._clock()
        for limit in self.limits:
            limit.limiter.tidy(now)
            if limit.settings.dry_run and limit.refused > self._logged[limit]:
                more = limit.refused - self._logged[limit]
                self._logged[limit] = limit.refused
                self._log.info(
                    "the limit {name!r}, on trial, would have refused {more} requests",
                    name=limit.settings.title,
                    more=more,
                )


def _is_simple(limit: Limit) -> bool:
    return not limit.settings.dry_run and not limit.concurrent
