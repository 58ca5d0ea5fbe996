"""
The balancer as a tree of services.

Starting the tree listens; stopping it closes everything. The children have
names, so that whoever embeds the balancer finds them:

    balancer.getServiceNamed("selector")     which server is tried first
    balancer.getServiceNamed("health")       which are out, and why
    balancer.getServiceNamed("checker")      asks how they are, if that is wanted
    balancer.getServiceNamed("limiter")      who is admitted
    balancer.getServiceNamed("pool")         connections to servers
    balancer.getServiceNamed("frontend:web") the listening sockets
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.application import service

from balancebeam import transport
from balancebeam.demo import DemoService
from balancebeam.doors.forwarder import Onward, make_ids
from balancebeam.doors.http import BalancerSite
from balancebeam.doors.resource import BalancerResource
from balancebeam.doors.tcp import TcpSite
from balancebeam.doors.trust import TrustedProxies
from balancebeam.frontend import FrontendService
from balancebeam.interfaces import Random
from balancebeam.model import ActiveChecks, Settings
from balancebeam.observe.connections import ConnectionLog
from balancebeam.policy.access import AccessList
from balancebeam.policy.health import ActiveHealth
from balancebeam.policy.limits.limit import make_limit
from balancebeam.policy.selectors import ALGORITHMS
from balancebeam.poller import batching_reactor
from balancebeam.ticker import Ticker, sweep_interval
from balancebeam.upstream.directory import Directory
from balancebeam.upstream.health import HealthService
from balancebeam.upstream.limiter import LimiterService
from balancebeam.upstream.names import Names
from balancebeam.upstream.pool import Connect, ConnectionPool
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.tcp_pool import TcpPool


class BalancerService(service.MultiService):
    """
    Everything one balancer consists of.

    `resource` is its spine, for mounting in a `twisted.web` tree; with an
    empty `settings.bind` that is the only way in. `clock` gives seconds and
    never runs backwards, for limits; without one the reactor's is taken.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        random: Random,
        connect: Connect = transport.connect,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        timeouts = settings.timeouts
        limits = (timeouts.connect, timeouts.upstream, timeouts.header, timeouts.idle)
        ticker = Ticker(reactor, sweep_interval(*limits))
        data_reactor = batching_reactor(reactor)
        self.directory = Directory(settings.servers)
        algorithm = ALGORITHMS[settings.algorithm]
        selector = SelectorService(lambda: algorithm(random), self.directory)
        checks = settings.active or ActiveChecks()
        active = ActiveHealth(checks.fall, checks.rise)
        health = HealthService(
            self.directory,
            ticker,
            settings.passive,
            active,
            slow_start=settings.slow_start,
            longest_test=timeouts.upstream,
        )
        rates = [make_limit(limit) for limit in settings.limits]
        access = AccessList(settings.allow, settings.deny)
        limiter = LimiterService(rates, access, ticker, clock or reactor.seconds)
        names = Names(reactor, ticker)
        kind = TcpPool if settings.mode == "tcp" else ConnectionPool
        pool = kind(data_reactor, names, timeouts, ticker, connect, health.failed)
        trusted = TrustedProxies(settings.trusted_proxies)
        retries = settings.retries
        if settings.mode == "tcp":
            # A client is closed when there is no server left to try.
            retries = evolve(retries, attempts=max(retries.attempts, len(settings.servers)))
        self.resource = BalancerResource(
            selector,
            health,
            limiter,
            pool,
            retries,
            settings.waiting,
            trusted=trusted,
            onward=Onward(settings.forwarding, make_ids(random)),
        )
        if settings.log_connections:
            self.resource.observer = ConnectionLog(reactor.seconds)
        site: BalancerSite | TcpSite
        if settings.mode == "tcp":
            site = TcpSite(self.resource, ticker, timeouts)
        else:
            site = BalancerSite(self.resource, ticker, timeouts, settings.max_body)
        self.frontend = FrontendService("web", settings.bind, site, reactor, data_reactor)
        # Twisted starts children in this order, and what is listened to comes last.
        children = [ticker, selector, health, limiter, pool]
        if settings.active is not None:
            # Imported here because treq, which checks need, takes its time.
            from balancebeam.upstream.checker import CheckerService
            from balancebeam.upstream.probes import probe_for

            probe = probe_for(settings.active, reactor)
            children.append(CheckerService(probe, settings.active, self.directory, health, reactor))
        if settings.demo:
            children.append(DemoService(settings.demo, self.directory, reactor))
        for child in (*children, self.frontend):
            child.setServiceParent(self)


def make_balancer(
    settings: Settings, reactor: Any = None, random: Random | None = None
) -> BalancerService:
    """
    The service tree for `settings`; touches no socket before it is started.

    The reactor defaults to the global one, `random` to the system's.
    """
    if reactor is None:
        from twisted.internet import reactor
    if random is None:
        from random import SystemRandom

        random = SystemRandom()
    return BalancerService(settings, reactor, random, clock=time.monotonic)
