"""The service that says who is admitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from twisted.application import service
from twisted.logger import Logger

from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Gate, Scopes
from balancebeam.core.settings import LimitSettings
from balancebeam.net.ticker import Ticker
from balancebeam.ratelimit.limit import Limit, make_limit


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
