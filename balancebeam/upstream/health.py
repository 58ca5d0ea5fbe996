"""The service that knows how the servers are."""

from __future__ import annotations

from twisted.application import service
from twisted.logger import Logger

from balancebeam.model import FailureKind, UpstreamFailure
from balancebeam.policy.health import PassiveHealth
from balancebeam.ticker import Ticker
from balancebeam.upstream.directory import Directory, Server

_AT_FAULT = frozenset((FailureKind.UNREACHABLE, FailureKind.CONNECT_TIMEOUT))


class HealthService(service.Service):
    """Hears how attempts ended, and keeps servers that fail out of the way."""

    name = "health"
    _log = Logger()

    def __init__(self, policy: PassiveHealth, directory: Directory, ticker: Ticker) -> None:
        self._policy = policy
        self._directory = directory
        self._ticker = ticker

    def failed(self, server: Server, failure: UpstreamFailure) -> None:
        """An attempt at `server` failed."""
        if failure.kind not in _AT_FAULT:
            return
        now = self._ticker.now
        if server.avoided_until > now:
            # Several requests may have been under way to it: one outage.
            return
        if self._policy.failed(server, now):
            self._directory.troubled.add(server)
            self._log.warn(
                "{server} is avoided for {seconds:g} s: {why}",
                server=server.name,
                seconds=server.cooldown,
                why=failure.detail,
            )

    def succeeded(self, server: Server) -> None:
        """`server`, which had failed, has answered."""
        if server in self._directory.troubled:
            self._directory.troubled.discard(server)
            self._log.info("{server} answers again", server=server.name)
        self._policy.succeeded(server)
