"""The service that says who is admitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from twisted.application import service
from twisted.logger import Logger

from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Admission, LimitsByScope
from balancebeam.core.settings import LimitSettings
from balancebeam.net.ticker import Ticker
from balancebeam.ratelimit.limit import Limit, build_limit


class LimiterService(service.Service):
    """
    Keeps all limits, and tells the log what those on trial would have refused.

    A limit that is the same as before keeps its state when others change.
    """

    name = "limiter"
    _log = Logger()

    def __init__(self, ticker: Ticker, clock: Callable[[], float]) -> None:
        self.scopes: LimitsByScope = {}
        self._clock = clock
        # How many refusals of each limit on trial the log knows of.
        self._logged: dict[Limit, int] = {}
        ticker.add(self.sweep)

    @property
    def limits(self) -> Iterable[Limit]:
        """All there are."""
        return (limit for limits in self.scopes.values() for limit in limits)

    def prepare(self, settings_by_scope: Mapping[str, tuple[LimitSettings, ...]]) -> LimitsByScope:
        """
        The limits that are `settings_by_scope`, of which those that are there already are
        the same objects. Raises `ValueError`.
        """
        limits_by_scope: dict[str, tuple[Limit, ...]] = {}
        for scope, settings in settings_by_scope.items():
            kept = list(self.scopes.get(scope, ()))
            limits = []
            for one in settings:
                limit = next((limit for limit in kept if limit.settings == one), None)
                if limit is None:
                    limit = build_limit(one)
                else:
                    kept.remove(limit)
                limits.append(limit)
            limits_by_scope[scope] = tuple(limits)
        return limits_by_scope

    def commit(self, scopes: LimitsByScope) -> None:
        """Have these limits from now on."""
        self.scopes = scopes
        self._logged = {limit: self._logged.get(limit, 0) for limit in self.limits}

    def build_admission(
        self, limits: Sequence[Limit], access: AccessList = AccessList()
    ) -> Admission:
        """What asks all of `limits`, and `access` first."""
        return Admission(limits, access, self._clock)

    def sweep(self, _: float) -> Any:
        """Give back memory, and say what limits on trial would have done."""
        now = self._clock()
        for limit in self.limits:
            limit.limiter.expire(now)
            if limit.settings.dry_run and limit.rejected > self._logged[limit]:
                more = limit.rejected - self._logged[limit]
                self._logged[limit] = limit.rejected
                self._log.info(
                    "the limit {name!r}, on trial, would have refused {more} requests",
                    name=limit.settings.title,
                    more=more,
                )
