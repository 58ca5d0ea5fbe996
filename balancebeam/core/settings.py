"""The nouns that every room shares, as data that does not change."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

from balancebeam.core.addresses import ListenAddress, ServerAddress, TcpAddress

# As in HAProxy, whose weights go from 0 to 256 too.
MAX_WEIGHT = 256


@frozen
class ServerSettings:
    """
    One server of a pool: where it is and how much it shall get.

    `weight` goes from 0 (no new traffic) to 256. More than `max_in_flight`
    requests are never sent to it at once, if that is given. With
    `proxy_protocol`, version 1 or 2, every connection to it begins with a
    header that says who the client is, and serves only one request.
    """

    address: ServerAddress
    weight: int = 1
    backup: bool = False
    max_in_flight: int | None = None
    proxy_protocol: int | None = None


class ServerSource(enum.Enum):
    """How a server came to be in its pool."""

    CONFIGURED = "configured"
    REGISTERED = "registered"
    DEMO = "demo"


class AdminState(enum.Enum):
    """What the operator wants of a server, whatever its health."""

    READY = "ready"
    DRAIN = "drain"
    MAINTENANCE = "maintenance"


# The path of active health checks that an option or a program turns on without a path.
DEFAULT_CHECK_PATH = "/"

# The path of the checks of [pool.health] without a path, and of the check before a server is
# registered: a convention of HTTP services, and the path of the Go balancer that is replaced.
DEFAULT_HEALTH_PATH = "/health"


@frozen
class HealthCheckSettings:
    """
    How servers are asked whether they are well.

    `path` is what is asked for, every `interval` seconds; without one, a
    connection is enough. `timeout` (seconds) is at most 2 and half the
    interval unless given. So many failures in a row as `fall` says take a
    server out, `rise` successes bring it back. `status` is the first and the
    last status that is a success.
    """

    path: str | None = DEFAULT_CHECK_PATH
    interval: float = 10.0
    timeout: float | None = None
    fall: int = 2
    rise: int = 2
    status: tuple[int, int] = (200, 299)

    @property
    def effective_timeout(self) -> float:
        """The time limit of one check in seconds."""
        return min(2.0, self.interval / 2) if self.timeout is None else self.timeout


@frozen
class OutlierDetectionSettings:
    """
    What requests tell of servers.

    `failures` in a row have a server avoided for `cooldown` seconds, longer if
    it keeps failing. With `error_ratio`, so does a greater share of 5xx among
    at least `min_requests` answers of the last `window` seconds; of all
    servers, no more than a share of `max_ejected_ratio` (but always one) is avoided
    for that.
    """

    failures: int = 1
    cooldown: float = 10.0
    error_ratio: float | None = None
    window: float = 10.0
    min_requests: int = 20
    max_ejected_ratio: float = 0.5


@frozen
class RetrySettings:
    """
    `attempts` bounds the servers tried for one request, `budget` the retries
    as a share of the requests of the last ten seconds; 10 are always allowed.
    """

    attempts: int = 3
    budget: float = 0.2


@frozen
class QueueSettings:
    """
    Requests for which all servers are at their `max_in_flight`: no more than
    `limit` of them wait, and none for longer than `timeout` seconds.
    """

    limit: int = 1024
    timeout: float = 5.0


@frozen
class PoolTimeouts:
    """
    Time limits in seconds. `connect`: until a connection to a server stands.
    `upstream`: silence of a server that owes an answer.
    """

    connect: float = 5.0
    upstream: float = 60.0


@frozen
class FrontendTimeouts:
    """
    Time limits in seconds. `header`: a client's request head. `idle`: silence
    of a client between requests, within a body, or while it should be reading
    its answer. `tunnel`: silence on both sides of a TCP connection or a tunnel
    such as a WebSocket; 0 for as long as they like.
    """

    header: float = 10.0
    idle: float = 60.0
    tunnel: float = 0.0


@frozen
class ForwardingSettings:
    """
    What servers are told of who asked: X-Forwarded-For, -Proto and -Host,
    Forwarded (RFC 7239), or both; and X-Request-Id, which with "keep" is made
    unless it came, and with "make" always.
    """

    x_forwarded: bool = True
    forwarded: bool = False
    request_id: str = "off"


@frozen
class LimitSettings:
    """
    One limit: `requests` in `window` seconds, by one of the `algorithm`s fixed-window,
    sliding-window, sliding-log, token-bucket (with `burst`, or `requests`, at
    once) and concurrent (so many at a time).

    `key` names what is counted together: "client" (IPv6 by its first
    `ipv6_prefix` bits), "host", "header:NAME", "path:/PREFIX". A limit with
    `dry_run` only counts and logs. `status` and `message` are the answer.
    """

    requests: int
    window: float = 60.0
    algorithm: str = "sliding-window"
    burst: int | None = None
    key: tuple[str, ...] = ("client",)
    ipv6_prefix: int = 64
    dry_run: bool = False
    status: int = 429
    message: str = "too many requests"
    name: str = ""

    @property
    def title(self) -> str:
        """What it is called: its name, or what it counts."""
        return self.name or " ".join(self.key)


@frozen
class PoolSettings:
    """
    Servers that can stand in for each other.

    Over `slow_start` seconds a server that came back gets its full share
    little by little.
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


@frozen
class RouteSettings:
    """
    Requests for `host` (or "*.example.org") below `path` go to the pool of that
    name. In TCP mode `host` is the server name of a TLS client.
    """

    pool: str
    host: str | None = None
    path: str | None = None
    limits: tuple[LimitSettings, ...] = ()


@frozen
class FrontendSettings:
    """
    Where clients come in, and where they go: by the first of `routes` that
    matches, or else to the pool called `pool`.

    With `registration`, servers may register through it from loopback and the
    networks in `registration_from`. `access_log` is a file or "-".
    """

    name: str = "web"
    bind: tuple[ListenAddress, ...] = (TcpAddress("0.0.0.0", 1100),)
    mode: str = "http"
    pool: str = "app"
    routes: tuple[RouteSettings, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_body: int | None = None
    registration: bool = False
    registration_from: tuple[str, ...] = ()
    access_log: str | None = None
    access_log_format: str = "combined"
    timeouts: FrontendTimeouts = FrontendTimeouts()
    limits: tuple[LimitSettings, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    forwarding: ForwardingSettings = ForwardingSettings()
    log_connections: bool = False


@frozen
class SecretSource:
    """A text that is not shown: `value` itself, or a file or a variable that holds it."""

    value: str | None = field(default=None, repr=False)
    file: str | None = None
    variable: str | None = None


@frozen
class AdminSettings:
    """Where the operator comes in, and the token that is asked for there, if any."""

    bind: ListenAddress = field(default=TcpAddress("127.0.0.1", 1101))
    token: SecretSource | None = None


@frozen
class Settings:
    """
    Everything one balancer was told, checked and complete.

    `state` is the file in which the operator's marks outlive a restart.
    `drain_timeout` is in seconds. So many `demo` servers are added to the
    first pool. `source_locations` says where in a file the texts of addresses to listen
    at stand, for messages.
    """

    frontends: tuple[FrontendSettings, ...]
    pools: tuple[PoolSettings, ...]
    admin: AdminSettings | None = None
    state: str | None = None
    drain_timeout: float = 30.0
    demo: int = 0
    source_locations: Mapping[str, str] = field(factory=dict, eq=False, repr=False)

    def pool_mode(self, pool: str) -> str:
        """What the pool of that name is for: the mode of the frontends that use it."""
        for frontend in self.frontends:
            if pool == frontend.pool or any(pool == route.pool for route in frontend.routes):
                return frontend.mode
        return "http"
