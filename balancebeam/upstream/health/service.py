"""The service that knows how the servers are."""

from __future__ import annotations

from twisted.application import service
from twisted.logger import Logger

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import AdminState, OutlierDetectionSettings
from balancebeam.net.ticker import Ticker
from balancebeam.upstream.health.error_rate import AnswerCounts, ErrorRatio
from balancebeam.upstream.health.slow_start import SlowStart
from balancebeam.upstream.health.thresholds import ActiveHealth, PassiveHealth
from balancebeam.upstream.server_set import CheckResult, Directory, Server

_AT_FAULT = frozenset(
    (
        FailureKind.UNREACHABLE,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.CLOSED,
        FailureKind.MALFORMED,
        FailureKind.TIMEOUT,
    )
)


class HealthService(service.Service):
    """
    Hears how requests and checks ended, and keeps servers that fail out of the way.

    A server that failed is avoided for its cooldown. Then it is on trial: it
    gets one request, and no other until that has been answered or has failed.
    So a server that is frozen holds up one client, not all of them. While all
    are avoided the proxy fails open, and any answer ends a cooldown. A test
    that takes longer than `longest_test` seconds shows nothing.
    """

    name = "health"
    _log = Logger()

    def __init__(
        self,
        directory: Directory,
        ticker: Ticker,
        passive: OutlierDetectionSettings = OutlierDetectionSettings(),
        active: ActiveHealth = ActiveHealth(),
        slow_start: float = 0.0,
        longest_test: float = 60.0,
    ) -> None:
        self._directory = directory
        self._ticker = ticker
        # When each of those that warm up came back, on the ticker.
        self._warming: dict[Server, float] = {}
        self._ejected: set[Server] = set()
        self._generation = -1
        self.configure(passive, active, slow_start, longest_test)
        ticker.add(self.sweep)
        directory.listen(self._changed)

    def configure(
        self,
        passive: OutlierDetectionSettings,
        active: ActiveHealth,
        slow_start: float,
        longest_test: float,
    ) -> None:
        """Go by these from now on; what is known of servers stays."""
        self._passive = PassiveHealth(passive.cooldown, passive.failures)
        self._active = active
        self._window = passive.window
        self._outliers: ErrorRatio | None = None
        if passive.error_ratio is not None:
            self._outliers = ErrorRatio(
                passive.error_ratio, passive.min_requests, passive.max_ejected_ratio
            )
        for server in self._directory.servers:
            if self._outliers is None:
                server.answers = None
            elif server.answers is not None:
                server.answers.window = passive.window
        self._slow_start = SlowStart(slow_start)
        self._longest_test = longest_test
        self._generation = -1
        self._changed()

    def forget_checks(self) -> None:
        """Nobody asks servers any more how they are: those that were down for it are up."""
        for server in self._directory.servers:
            server.checks_in_row = 0
            if not server.healthy:
                server.healthy = True
                self._moved(server, "it is not checked any more")

    # What requests tell.

    def taken(self, server: Server, request: object) -> None:
        """A watched server is given `request`."""
        if server.suspect:
            server.tests.add(request)
            if server.on_trial:
                server.on_trial = False
                server.avoided = True
                server.tested_at = self._ticker.now
                self._directory.changed(server)

    def answered(self, server: Server, request: object, status: int) -> None:
        """The answer of a watched server to `request` has begun."""
        if server.answers is not None:
            self._count(server, status)
        # What a server was asked before it failed shows nothing.
        if request in server.tests and (server.avoided or server.on_trial):
            if server in self._ejected and status >= 500:
                server.tests.discard(request)
                self._eject(server, "its answers are still errors")
            else:
                self._readmit(server)

    def completed(self, server: Server, request: object) -> None:
        """A watched server has answered `request` to its end."""
        if request in server.tests and not server.avoided and not server.on_trial:
            self._forgive(server)

    def released(self, server: Server, request: object) -> None:
        """`request` is over for a watched server, one way or another."""
        server.tests.discard(request)
        if server.avoided and not server.tests and server.avoided_until <= self._ticker.now:
            # The client left before the server could show anything.
            self._try_again(server)

    def failed(self, server: Server, request: object, failure: UpstreamFailure) -> None:
        """
        `request` failed at `server`; `None` for an attempt to connect that
        nobody waits for any more.
        """
        if failure.kind not in _AT_FAULT or server.removed:
            return
        tested = request in server.tests or (request is None and not server.avoided)
        server.tests.discard(request)
        now = self._ticker.now
        if server.avoided and server.avoided_until > now:
            # Several requests may have been under way to it: one outage.
            return
        if server.outage and not tested:
            # It was asked this before it failed, and may have recovered since.
            return
        server.watch(suspect=True)
        server.well_since = now
        if self._passive.failed(server, now):
            self._avoid(server, failure.detail)

    def _avoid(self, server: Server, why: str) -> None:
        server.avoided = server.outage = True
        server.on_trial = False
        server.tests.clear()
        server.checks_in_row = min(server.checks_in_row, 0)
        self._moved(server, why)
        self._log.warn(
            "{server} is avoided for {seconds:g} s: {why}",
            server=server.name,
            seconds=server.cooldown,
            why=why,
        )

    def _readmit(self, server: Server) -> None:
        """It answers. Whether it does so to the end is another question."""
        server.avoided = server.on_trial = False
        server.avoided_until = 0.0
        self._ejected.discard(server)
        self._log.info("{server} answers again", server=server.name)
        self._came_back(server, "it answers again")

    def _forgive(self, server: Server) -> None:
        """It is as good as new; but who was asked before the outage may yet complain."""
        self._passive.succeeded(server)
        server.well_since = self._ticker.now
        server.on_trial = False
        self._ejected.discard(server)
        if server.avoided:
            server.avoided = False
            self._directory.changed(server)

    def _count(self, server: Server, status: int) -> None:
        counts, outliers, now = server.answers, self._outliers, self._ticker.now
        if counts is None or outliers is None:
            # It has left, or nobody counts any more.
            return
        counts.add(status >= 500, now)
        if status < 500 or server.avoided or not outliers.exceeded(counts):
            return
        if outliers.may_eject(len(self._ejected), len(self._directory.servers)):
            share = counts.errors / counts.answers
            counts.clear()
            self._ejected.add(server)
            self._eject(server, f"{share:.0%} of its answers were errors")

    def _eject(self, server: Server, why: str) -> None:
        if self._passive.cooldown and server.avoided_until <= self._ticker.now:
            server.watch(suspect=True)
            self._passive.avoid(server, self._ticker.now)
            self._avoid(server, why)

    # What checks tell.

    def checked(self, server: Server, passed: bool, why: str) -> None:
        """An active check of `server` has ended; `why` says what it saw."""
        server.last_check = CheckResult(self._ticker.wall_time(), passed, why)
        changed = self._active.checked(server, passed)
        if passed and server.avoided and server.checks_in_row >= self._active.rise:
            self._forgive(server)
            changed = True
        if changed and passed:
            self._log.info("{server} is up: {why}", server=server.name, why=why)
            self._came_back(server, why)
        elif changed:
            self._log.warn("{server} is down: {why}", server=server.name, why=why)
            self._moved(server, why)

    # What the operator wants.

    def set_operator_state(self, server: Server, state: AdminState) -> None:
        """Let `server` have traffic, or have it drained, or leave it alone altogether."""
        before = server.operator
        if state is before:
            return
        self._directory.set_operator_state(server, state, self._ticker.wall_time())
        if before is AdminState.MAINTENANCE:
            # Whatever was wrong with it has been mended.
            self._forgive(server)
            self._came_back(server, server.why)

    def set_weight(self, server: Server, weight: int) -> None:
        """Give `server` a new weight, from 0 to 256."""
        server.weight = weight
        server.share = float(weight)
        since = self._warming.get(server)
        if since is not None:
            server.share = self._slow_start.share(weight, self._ticker.now - since)
        self._directory.changed(server)

    # What time brings.

    def sweep(self, now: float) -> None:
        """End cooldowns, and let shares grow."""
        suspects = [server for server in self._directory.servers if server.suspect]
        self._try_again(*(server for server in suspects if self._is_due(server, now)))
        for server in suspects:
            well = not (server.avoided or server.on_trial or server.failures or server.cooldown)
            if well and now - server.well_since >= self._longest_test:
                server.watch(suspect=False)
                server.outage = False
                server.tests.clear()
        if self._warming:
            self._warm(now)

    def _is_due(self, server: Server, now: float) -> bool:
        """Whether a server's cooldown is over, and it is not being tested."""
        if not server.avoided or server.avoided_until > now:
            return False
        # A client may take for ever to say what it wants.
        return not server.tests or now - server.tested_at >= self._longest_test

    def _try_again(self, *servers: Server) -> None:
        for server in servers:
            server.avoided = False
            server.on_trial = True
        if servers:
            self._directory.changed(*servers)

    def _warm(self, now: float) -> None:
        warming = list(self._warming.items())
        for server, since in warming:
            server.share = self._slow_start.share(server.weight, now - since)
            if server.share >= server.weight:
                del self._warming[server]
        self._directory.changed(*(server for server, _ in warming))

    def _came_back(self, server: Server, why: str) -> None:
        if self._slow_start.seconds:
            self._warming[server] = self._ticker.now
            server.share = self._slow_start.share(server.weight, 0.0)
        self._moved(server, why)

    def _moved(self, server: Server, why: str) -> None:
        server.why, server.since = why, self._ticker.wall_time()
        self._directory.changed(server)

    def _changed(self) -> None:
        """Servers may have come or gone."""
        if self._generation == self._directory.generation:
            return
        self._generation = self._directory.generation
        self._ejected = {server for server in self._ejected if not server.removed}
        self._warming = {s: since for s, since in self._warming.items() if not s.removed}
        if self._outliers is not None:
            for server in self._directory.servers:
                if server.answers is None:
                    server.answers = AnswerCounts(self._window)
                    server.watch(followed=True)
