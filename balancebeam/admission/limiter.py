"""The service that owns the rate limits of all scopes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

from twisted.application import service
from twisted.logger import Logger

from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Admission, LimitsByScope
from balancebeam.core.settings import LimitSettings
from balancebeam.net.ticker import Ticker
from balancebeam.ratelimit.limit import Limit, build_limit


class LimiterService(service.Service):
    """
    Builds limits, frees their memory, and logs what dry-run limits would have rejected.

    A reload keeps the limits whose settings are unchanged, with their counts.

    Attributes:
        scopes: The active limits by scope.
    """

    name = "limiter"
    _log = Logger()

    def __init__(self, ticker: Ticker, clock: Callable[[], float]) -> None:
        """
        Start without limits.

        Args:
            ticker: Calls `sweep`.
            clock: Returns the time in seconds; never runs backwards.
        """
        self.scopes: LimitsByScope = {}
        self._clock = clock
        # The `rejected` count of each limit when it was last logged.
        self._logged_counts: dict[Limit, int] = {}
        ticker.add(self.sweep)

    @property
    def limits(self) -> Iterable[Limit]:
        """The active limits of all scopes."""
        return (limit for limits in self.scopes.values() for limit in limits)

    def prepare(self, settings_by_scope: Mapping[str, tuple[LimitSettings, ...]]) -> LimitsByScope:
        """
        Build the limits of new settings; nothing is active before `commit`.

        Args:
            settings_by_scope: The settings. A scope is a text that names a frontend,
                a route or a pool independent of its position.

        Returns:
            The limits: the active ones where scope and settings are unchanged.

        Raises:
            ValueError: A limit is invalid.
        """
        limits_by_scope: dict[str, tuple[Limit, ...]] = {}
        for scope, settings_of_scope in settings_by_scope.items():
            active = list(self.scopes.get(scope, ()))
            limits = []
            for settings in settings_of_scope:
                limit = next((limit for limit in active if limit.settings == settings), None)
                if limit is None:
                    limit = build_limit(settings)
                else:
                    active.remove(limit)
                limits.append(limit)
            limits_by_scope[scope] = tuple(limits)
        return limits_by_scope

    def commit(self, scopes: LimitsByScope) -> None:
        """Activate the limits that `prepare` has built."""
        self.scopes = scopes
        self._logged_counts = {limit: self._logged_counts.get(limit, 0) for limit in self.limits}

    def build_admission(
        self, limits: Sequence[Limit], access: AccessList = AccessList()
    ) -> Admission:
        """The admission that checks `access` and then all of `limits`."""
        return Admission(limits, access, self._clock)

    def sweep(self, _: float) -> None:
        """Free memory of expired keys, and log the rejections of dry-run limits."""
        now = self._clock()
        for limit in self.limits:
            limit.limiter.expire(now)
            if limit.settings.dry_run and limit.rejected > self._logged_counts[limit]:
                count = limit.rejected - self._logged_counts[limit]
                self._logged_counts[limit] = limit.rejected
                self._log.info(
                    "rate limit {name!r}: dry run, {count} requests would have been rejected",
                    name=limit.settings.title,
                    count=count,
                )
