"""
Settings of a balancer: immutable values, the result of reading the configuration.

Attributes are named after the keys of the file wherever possible. All times are in
seconds and all sizes in bytes. Ranges are checked where settings are read
(`balancebeam.config`), not here.

Frontends, active health checks and rate limits have modules of their own; their names are exported
from here, so that all settings can be imported from one module.
"""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Mapping

from attrs import field, frozen

from balancebeam.core.addresses import ListenAddress, ServerAddress, TcpAddress, UnixAddress
from balancebeam.core.frontend_settings import (
    ForwardingSettings,
    FrontendSettings,
    FrontendTimeouts,
    RouteSettings,
)
from balancebeam.core.health_settings import (
    DEFAULT_CHECK_PATH,
    DEFAULT_HEALTH_PATH,
    HealthCheckSettings,
)
from balancebeam.core.limit_settings import LimitSettings
from balancebeam.core.tls_settings import (
    AcmeSettings,
    CertificateSource,
    FrontendTlsSettings,
    PoolTlsSettings,
)

__all__ = [
    "DEFAULT_CHECK_PATH",
    "DEFAULT_HEALTH_PATH",
    "HTTP1",
    "HTTP2",
    "MAX_WEIGHT",
    "UPSTREAM_PROTOCOLS",
    "AcmeSettings",
    "AdminSettings",
    "AdminState",
    "CertificateSource",
    "ForwardingSettings",
    "FrontendSettings",
    "FrontendTimeouts",
    "FrontendTlsSettings",
    "HealthCheckSettings",
    "LimitSettings",
    "OutlierDetectionSettings",
    "PoolSettings",
    "PoolTimeouts",
    "PoolTlsSettings",
    "QueueSettings",
    "RetrySettings",
    "RouteSettings",
    "SecretSource",
    "ServerSettings",
    "ServerSource",
    "Settings",
]

# As in HAProxy, whose weights go from 0 to 256 too.
MAX_WEIGHT = 256

# Protocols of requests to servers, with their names in ALPN.
HTTP1 = "http/1.1"
HTTP2 = "h2"
UPSTREAM_PROTOCOLS = (HTTP1, HTTP2)


@frozen
class ServerSettings:
    """
    One server of a pool.

    Attributes:
        address: where it listens.
        weight: its share of the traffic, 0 (no new traffic) to `MAX_WEIGHT`.
        backup: it is used only while no other server is available.
        max_in_flight: most concurrent requests; `None` for no limit.
        proxy_protocol: version (1 or 2) of the PROXY protocol header that begins each connection to
            it, which then serves only one request; `None` for no header.
        tls: connections to it use TLS, because its address was `https://…` or `tls://…`. They do
            also if `PoolTlsSettings.all_servers` is true.
        protocol: the protocol of requests to it, of `UPSTREAM_PROTOCOLS`; `None` for that of its
            pool.
        source_scheme: the scheme of the configured address, for error messages; `None` for none.
    """

    address: ServerAddress
    weight: int = 1
    backup: bool = False
    max_in_flight: int | None = None
    proxy_protocol: int | None = None
    tls: bool = False
    protocol: str | None = None
    source_scheme: str | None = field(default=None, eq=False, repr=False)


class ServerSource(enum.Enum):
    """
    How a server was added to its pool.

    Attributes:
        CONFIGURED: by the configuration file or the command line.
        REGISTERED: at run time, by the registration API.
        DEMO: as a demo server inside this process.
    """

    CONFIGURED = "configured"
    REGISTERED = "registered"
    DEMO = "demo"


class AdminState(enum.Enum):
    """
    The state set by an administrator, independent of the server's health.

    Attributes:
        READY: it takes traffic.
        DRAIN: it takes no new requests; active ones finish, and it is still checked.
        MAINTENANCE: it takes no new requests, and is not checked.
    """

    READY = "ready"
    DRAIN = "drain"
    MAINTENANCE = "maintenance"

    @classmethod
    def parse(cls, value: object) -> AdminState:
        """Return the state named `value`. Raises `ValueError`, which lists the names."""
        # Not `cls(value)`: its error shows all of `value`, which may be nested without bound.
        for state in cls:
            if value == state.value:
                return state
        names = ", ".join(state.value for state in cls)
        raise ValueError(f"invalid state {reprlib.repr(value)}: expected one of {names}")


@frozen
class OutlierDetectionSettings:
    """
    Passive health checks: ejection of servers whose requests fail.

    Attributes:
        failures: connection failures and timeouts in a row that eject a server.
        cooldown: time for which it is ejected, doubled while it keeps failing, up to eight times as
            long; 0 to eject no server.
        error_ratio: share of 5xx responses above which a server is ejected too; `None` to ignore
            statuses.
        window: time over which `error_ratio` is measured.
        min_requests: fewest responses in the window for `error_ratio` to apply.
        max_ejected_ratio: largest share of servers (but at least one) that may be ejected because
            of `error_ratio`.
        bad_answers: malformed and truncated responses in a row, without a good one between them,
            that eject a server.
    """

    failures: int = 1
    cooldown: float = 10.0
    error_ratio: float | None = None
    window: float = 10.0
    min_requests: int = 20
    max_ejected_ratio: float = 0.5
    bad_answers: int = 5


# No connection was made; the connection was closed before a valid response; no response in time.
RETRY_CONDITIONS = ("connect", "cut", "timeout")


@frozen
class RetrySettings:
    """
    Retries of failed requests at other servers.

    Attributes:
        attempts: most servers tried for one request.
        budget: most retries, as a share of the requests of the last ten seconds; 10 retries are
            always allowed.
        on: failures after which a request is retried, of `RETRY_CONDITIONS`.
    """

    attempts: int = 3
    budget: float = 0.2
    on: tuple[str, ...] = ("connect", "cut")


@frozen
class QueueSettings:
    """
    The queue of requests for which all servers are at their `max_in_flight`.

    Attributes:
        limit: most queued requests.
        timeout: longest time in the queue.
    """

    limit: int = 1024
    timeout: float = 5.0


@frozen
class PoolTimeouts:
    """
    Timeouts of connections to servers.

    Attributes:
        connect: time limit for establishing a connection.
        upstream: longest time without data from a server while a response is due.
    """

    connect: float = 5.0
    upstream: float = 60.0


@frozen
class PoolSettings:
    """
    A group of servers that serve the same requests.

    Attributes:
        name: unique name.
        servers: the servers, without registered ones.
        algorithm: name of the balancing algorithm.
        timeouts: timeouts of connections to servers.
        active: active health checks; `None` for none.
        passive: ejection of servers whose requests fail.
        retries: retries at other servers.
        queue: the queue for a saturated pool.
        slow_start: time over which the weight of a server that is up again rises to its full value;
            0 for none.
        limits: rate limits of all requests to the pool.
        tls: TLS of the connections to servers for which `uses_tls` is true; `None` for TLS with the
            defaults to servers with `ServerSettings.tls`, and no TLS to the others.
        protocol: the protocol of requests to servers without their own `ServerSettings.protocol`.
    """

    name: str = "app"
    servers: tuple[ServerSettings, ...] = ()
    algorithm: str = "round-robin"
    timeouts: PoolTimeouts = PoolTimeouts()
    active: HealthCheckSettings | None = None
    passive: OutlierDetectionSettings = OutlierDetectionSettings()
    retries: RetrySettings = RetrySettings()
    queue: QueueSettings = QueueSettings()
    slow_start: float = 0.0
    limits: tuple[LimitSettings, ...] = ()
    tls: PoolTlsSettings | None = None
    protocol: str = HTTP1

    def uses_http2(self, server: ServerSettings) -> bool:
        """Whether requests to `server` use HTTP/2."""
        return (server.protocol or self.protocol) == HTTP2

    def uses_tls(self, server: ServerSettings) -> bool:
        """Whether connections to `server` use TLS."""
        return server.tls or (self.tls is not None and self.tls.all_servers)

    def lacks_server_name(self, server: ServerSettings) -> bool:
        """Whether the certificate of `server` is verified, but there is no name to verify."""
        tls = self.tls or PoolTlsSettings()
        verified = self.uses_tls(server) and tls.verify
        return verified and tls.server_name is None and isinstance(server.address, UnixAddress)


@frozen
class SecretSource:
    """
    A secret, or where it is read from. At most one attribute is set.

    Attributes:
        value: the secret itself; not shown by `repr`.
        file: path of a file that holds it.
        variable: name of an environment variable that holds it.
    """

    value: str | None = field(default=None, repr=False)
    file: str | None = None
    variable: str | None = None


@frozen
class AdminSettings:
    """
    The admin API.

    Attributes:
        bind: address to listen on.
        token: the bearer token that requests must present; `None` for none.
    """

    bind: ListenAddress = field(default=TcpAddress("127.0.0.1", 1101))
    token: SecretSource | None = None


@frozen
class Settings:
    """
    The complete, checked configuration of one balancer.

    Attributes:
        frontends: the frontends, at least one.
        pools: the pools.
        admin: the admin API; `None` for none.
        state: path of the state file, which keeps registered servers, weights and admin states over
            a restart; `None` for none.
        drain_timeout: time limit of a drain; connections that are still active are closed then.
        demo: number of demo servers added to the first pool.
        log_format: format of the program's own log, "text" or "json".
        acme: the ACME account for the names in `FrontendTlsSettings.acme`; `None` for none.
        handover_timeout: time limit of the drain of the old process after a hot restart; `None` for
            none.
        source_locations: where the file has a listen address ("file:line: key"), by the text of the
            address, for error messages.
    """

    frontends: tuple[FrontendSettings, ...]
    pools: tuple[PoolSettings, ...]
    admin: AdminSettings | None = None
    state: str | None = None
    drain_timeout: float = 30.0
    demo: int = 0
    handover_timeout: float | None = None
    log_format: str = "text"
    acme: AcmeSettings | None = None
    source_locations: Mapping[str, str] = field(factory=dict, eq=False, repr=False)

    @property
    def default_frontend(self) -> FrontendSettings | None:
        """The first frontend that has a pool, or else the first one; `None` without any."""
        with_pools = (frontend for frontend in self.frontends if not frontend.redirect_https)
        return next(with_pools, self.frontends[0] if self.frontends else None)

    @property
    def default_pool(self) -> str | None:
        """
        The name of the pool of the default frontend; `None` without pools.

        If no frontend has a pool, it is the first one.
        """
        frontend = self.default_frontend
        if frontend is not None and not frontend.redirect_https:
            return frontend.pool
        return self.pools[0].name if self.pools else None

    @property
    def acme_names(self) -> tuple[str, ...]:
        """The host names of all frontends for which ACME obtains certificates, without doubles."""
        names = {
            name: None
            for frontend in self.frontends
            if frontend.tls is not None
            for name in frontend.tls.acme
        }
        return tuple(names)

    def pool_mode(self, pool: str) -> str:
        """Return the mode ("http" or "tcp") of the frontends that use the pool named `pool`."""
        for frontend in self.frontends:
            if pool in frontend.pool_names:
                return frontend.mode
        return "http"
