"""Settings of the usual balancer: one frontend, one pool."""

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
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
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
    """All time limits, in seconds; see `PoolTimeouts` and `FrontendTimeouts`."""

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
) -> Settings:
    """One frontend called "web", and one pool called "app" behind it."""
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
