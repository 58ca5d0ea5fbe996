"""Runtime state of one server: settings, admin state, health, load and idle connections."""

from __future__ import annotations

import sys

from attrs import frozen

from balancebeam.core.settings import AdminState, ServerSettings, ServerSource
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.health.ejection_state import EjectionState
from balancebeam.upstream.health.error_rate import ErrorRateWindow
from balancebeam.upstream.interfaces import PooledConnection

# Idle connections kept per server, as nginx's `keepalive` limits them per worker. It bounds
# the file descriptors that a burst leaves open until the idle timeout, and is far above
# the concurrency that one event loop sustains for one server.
MAX_IDLE_CONNECTIONS = 512


@frozen
class CheckResult:
    """
    The result of one active health check.

    Attributes:
        checked_at: Time of day, in seconds since the epoch.
        passed: Whether the server is healthy by this check.
        reason: What was seen, as text.
    """

    checked_at: float
    passed: bool
    reason: str


class Server:
    """
    One server at run time.

    Three things remove a server from the rotation: its `admin_state`; active health
    checks (`healthy`); and its own failures (`ejected`). It is `available` if none does.

    Per-request callbacks cost time, so they run only while `tracked` is true: because the
    algorithm or the error rate needs them (`load_tracked`), or because the server failed
    not long ago (`under_observation`).

    Attributes:
        address: Where the server listens.
        name: The address as text.
        weight: The weight set by the configuration or by an administrator, 0 to 256.
        configured_weight: The weight in the configuration.
        effective_weight: The weight that algorithms use; less than `weight` during slow start.
        source: How the server came into its pool.
        backup: The server is used only if no primary server is available.
        max_in_flight: The largest number of concurrent requests.
        proxy_protocol: Version of the PROXY header that starts each connection, or `None`.
        uses_tls: The settings of the server enable TLS; the settings of its pool may do so as well.
        protocol: The protocol of requests to the server; `None` for that of its pool.
        tls: Context, name and session of the TLS connections; see `PoolTls.find`.
        idle_connections: Idle connections in the order of their last use, as keys.
        max_idle: The largest number of idle connections to keep now.
        default_max_idle: `max_idle` while the server is ready.
        admin_state: The state that an administrator has set.
        in_flight: Requests sent to the server and not finished.
        total_requests: Requests sent to the server so far.
        failed_requests: Requests that failed at the server so far.
        removed: The server has left its pool; requests in flight may still finish.
        last_check: The latest result of an active health check, if there was one.
        healthy: The verdict of active health checks; true without checks.
        check_streak: Consecutive checks with the same result; negative if they failed.
        ejected: Ejected for its failures, until its cooldown and a trial request are over.
        available: Eligible and not ejected; kept up to date by `ServerSet.notify`.
        ejection: Details of the ejection.
        status_reason: Why the status last changed, as text.
        status_since: When the status last changed, in seconds since the epoch.
        load_tracked: The algorithm or the error rate needs per-request callbacks.
        under_observation: The health service needs them, because the server failed recently.
        tracked: Either of the two.
        error_rate_window: Recent responses and errors; `None` without an error-rate policy.
        ejections: The number of ejections by reason, a word of a fixed set.
        first_byte_samples: Seconds until responses began; emptied by a periodic sweep.
        connect_samples: Durations of connection attempts for requests, likewise.
    """

    def __init__(
        self, settings: ServerSettings, source: ServerSource = ServerSource.CONFIGURED
    ) -> None:
        self.address = settings.address
        self.name = str(settings.address)
        self.weight = settings.weight
        self.effective_weight = float(settings.weight)
        self.source = source
        self.idle_connections: dict[PooledConnection, None] = {}
        self.tls: ServerTls | None = None
        self.admin_state = AdminState.READY
        self.configure(settings)
        self.in_flight = 0
        self.total_requests = 0
        self.failed_requests = 0
        self.removed = False
        self.last_check: CheckResult | None = None
        self.healthy = True
        self.check_streak = 0
        self.ejected = False
        self.available = False
        self.ejection = EjectionState()
        self.status_reason = ""
        self.status_since = 0.0
        self.load_tracked = False
        self.under_observation = False
        self.tracked = False
        self.error_rate_window: ErrorRateWindow | None = None
        self.ejections: dict[str, int] = {}
        self.first_byte_samples: list[float] = []
        self.connect_samples: list[float] = []

    def configure(self, settings: ServerSettings) -> None:
        """Apply `settings`, except for the weight, which an administrator may have changed."""
        self.backup = settings.backup
        self.max_in_flight = settings.max_in_flight or sys.maxsize
        self.proxy_protocol = settings.proxy_protocol
        self.uses_tls = settings.tls
        self.protocol = settings.protocol
        self.configured_weight = settings.weight
        # A connection that began with the PROXY header of one client serves no other.
        self.default_max_idle = 0 if settings.proxy_protocol else MAX_IDLE_CONNECTIONS
        if self.admin_state is AdminState.READY:
            self.max_idle = self.default_max_idle
        if not self.default_max_idle:
            for connection in list(self.idle_connections):
                connection.close_idle()

    def track(
        self, *, load_tracked: bool | None = None, under_observation: bool | None = None
    ) -> None:
        """Set one of the two reasons for per-request callbacks, or both."""
        if load_tracked is not None:
            self.load_tracked = load_tracked
        if under_observation is not None:
            self.under_observation = under_observation
        self.tracked = self.load_tracked or self.under_observation

    def close_idle_connections(self) -> None:
        """Close all idle connections, and keep none from now on."""
        self.max_idle = 0
        for connection in list(self.idle_connections):
            connection.close_idle()

    @property
    def eligible(self) -> bool:
        """Whether the server may get requests if no better server is available."""
        ready = self.admin_state is AdminState.READY
        return self.weight > 0 and ready and self.healthy and not self.removed

    @property
    def status(self) -> str:
        """The status as one word: `up`, `down`, `draining` or `maintenance`."""
        if self.admin_state is AdminState.MAINTENANCE:
            return "maintenance"
        if self.admin_state is AdminState.DRAIN:
            return "draining"
        return "up" if self.healthy and not self.ejected else "down"

    def __repr__(self) -> str:
        return (
            f"<Server {self.name} {self.status} in_flight={self.in_flight} "
            f"idle={len(self.idle_connections)}>"
        )
