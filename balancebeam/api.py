"""
The embedding API: a balancer inside another Twisted program.

`single_pool_settings` builds the settings of the most common balancer, one frontend and one pool;
`balancebeam.core.settings` has the classes for any other. `make_balancer` turns settings into a
service for the application::

    from balancebeam.api import make_balancer, single_pool_settings
    from balancebeam.core.addresses import TcpAddress
    from balancebeam.core.settings import ServerSettings

    settings = single_pool_settings(
        servers=(
            ServerSettings(TcpAddress("10.0.0.1", 8080)),
            ServerSettings(TcpAddress("10.0.0.2", 8080), weight=2),
        ),
        bind=(TcpAddress("127.0.0.1", 1100),),
        algorithm="least-connections",
    )
    make_balancer(settings).setServiceParent(application)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from balancebeam.core.addresses import ListenAddress
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import (
    ForwardingSettings,
    FrontendSettings,
    FrontendTimeouts,
    FrontendTlsSettings,
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    PoolTlsSettings,
    QueueSettings,
    RetrySettings,
    ServerSettings,
    Settings,
)

if TYPE_CHECKING:
    from balancebeam.server.balancer import BalancerService
    from balancebeam.server.listeners import InheritedSocket


@frozen
class Timeouts:
    """
    The timeouts of a frontend and its pool, in seconds.

    Attributes:
        connect: connecting to a server.
        upstream: silence of a server while a response is pending.
        header: receiving the head of a request from a client.
        idle: silence of a client between requests, within a body, or while it does not read its
            response.
        tunnel: silence of both sides of a TCP connection or an upgraded connection, such as a
            WebSocket; 0 for no timeout.
    """

    connect: float = 5.0
    upstream: float = 60.0
    header: float = 10.0
    idle: float = 60.0
    tunnel: float = 0.0


def single_pool_settings(
    servers: tuple[ServerSettings, ...],
    bind: tuple[ListenAddress, ...] = FrontendSettings().bind,
    mode: str = "http",
    algorithm: str = "round-robin",
    active: HealthCheckSettings | None = None,
    passive: OutlierDetectionSettings = OutlierDetectionSettings(),
    retries: RetrySettings = RetrySettings(),
    queue: QueueSettings = QueueSettings(),
    slow_start: float = 0.0,
    timeouts: Timeouts = Timeouts(),
    trusted_proxies: tuple[str, ...] = (),
    forwarding: ForwardingSettings = ForwardingSettings(),
    allow: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
    limits: tuple[LimitSettings, ...] = (),
    max_body: int | None = None,
    demo: int = 0,
    log_connections: bool = False,
    tls: FrontendTlsSettings | None = None,
    upstream_tls: PoolTlsSettings | None = None,
) -> Settings:
    """
    Build the settings of a balancer with one frontend, "web", and one pool, "app".

    The arguments are not validated; the parsers of `balancebeam.config` do that for files and
    options.

    Args:
        servers: the servers of the pool.
        bind: the addresses of the listeners, `0.0.0.0:1100` by default.
        mode: "http" to balance requests, "tcp" to balance connections.
        algorithm: the name of the balancing algorithm, a key of
            `balancebeam.balancing.registry.ALGORITHMS`.
        active: the active health checks; `None` disables them.
        passive: when a server is ejected because requests to it failed.
        retries: how often a failed request is sent to another server.
        queue: how many requests wait for a pool whose servers are all at their `max_in_flight`,
            and for how long.
        slow_start: the seconds over which a recovered server gets its full share of requests.
        timeouts: the timeouts of the frontend and the pool.
        trusted_proxies: networks (CIDR) of proxies whose `X-Forwarded-*` headers are trusted.
        forwarding: the headers that carry the client's address to the servers.
        allow: networks (CIDR) whose clients are accepted; all networks if empty.
        deny: networks (CIDR) whose clients are rejected.
        limits: the rate limits of the frontend.
        max_body: the maximum size of a request body in bytes; `None` for no maximum.
        demo: the number of demo servers to start in this process and to add to the pool.
        log_connections: whether to log each connection in TCP mode.
        tls: the settings of TLS with clients; `None` for plain connections.
        upstream_tls: the settings of TLS with servers; `None` for TLS with the defaults to servers
            with `ServerSettings.tls`, and no TLS to the others.
    """
    frontend = FrontendSettings(
        bind=bind,
        mode=mode,
        trusted_proxies=trusted_proxies,
        max_body=max_body,
        timeouts=FrontendTimeouts(timeouts.header, timeouts.idle, timeouts.tunnel),
        limits=limits,
        allow=allow,
        deny=deny,
        forwarding=forwarding,
        log_connections=log_connections,
        tls=tls,
    )
    pool = PoolSettings(
        servers=servers,
        algorithm=algorithm,
        timeouts=PoolTimeouts(timeouts.connect, timeouts.upstream),
        active=active,
        passive=passive,
        retries=retries,
        queue=queue,
        slow_start=slow_start,
        tls=upstream_tls,
    )
    return Settings((frontend,), (pool,), demo=demo)


def make_balancer(
    settings: Settings,
    reactor: Any = None,
    random: Random | None = None,
    load_settings: Callable[[], Settings] | None = None,
    find_inherited_sockets: Callable[[], Mapping[str, InheritedSocket]] | None = None,
) -> BalancerService:
    """
    The service tree for `settings`; touches no socket before it is started.

    The reactor defaults to the global one, `random` to the system's. See
    `BalancerService` for the others.
    """
    # Imported here, because twisted.web.proxy imports the reactor, and a program
    # may install another one after it has imported this module.
    from balancebeam.server.balancer import BalancerService

    if reactor is None:
        from twisted.internet import reactor
    if random is None:
        from random import SystemRandom

        random = SystemRandom()
    return BalancerService(
        settings,
        reactor,
        random,
        clock=time.monotonic,
        load_settings=load_settings,
        find_inherited_sockets=find_inherited_sockets,
    )
