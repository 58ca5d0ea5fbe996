"""
The children of a balancer as a tree of named services.

    balancer.getServiceNamed("frontend:web")  a frontend: its client connections
    balancer.getServiceNamed("pool:app")      a pool: its servers; children of a pool are
        .getServiceNamed("selector")          the load balancing algorithm,
        .getServiceNamed("health")            the health and ejection state of servers,
        .getServiceNamed("checker")           active health checks, if enabled,
        .getServiceNamed("connections")       the upstream connection pool
    balancer.getServiceNamed("limiter")       rate limits
    balancer.getServiceNamed("listeners")     the listening sockets
    balancer.getServiceNamed("access-logs")   the access log files
    balancer.getServiceNamed("tracing")       the export of spans, if enabled
    balancer.getServiceNamed("certificates")  the TLS certificates of frontends
    balancer.getServiceNamed("acme")          certificates from ACME, if any names need them
    balancer.getServiceNamed("pool-certificates")  watches the files of TLS to servers
    balancer.getServiceNamed("admin")         the admin API, if enabled
    balancer.getServiceNamed("state")         the state file, if enabled

The children of the default pool are also found by their short names: `selector`,
`health`, `checker`, `connections`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from twisted.application import service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

from balancebeam.acme.challenges import Challenges
from balancebeam.acme.service import AcmeService
from balancebeam.admin.operations import AdminOperations
from balancebeam.admin.service import AdminService, build_health_check
from balancebeam.admin.state_changes import StateChanges
from balancebeam.admission.admission import Admission
from balancebeam.admission.limiter import LimiterService
from balancebeam.core.addresses import ListenAddress, TcpAddress
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import Settings
from balancebeam.downstream.redirect import HTTPS_PORT, ChallengeLookup, HttpsRedirect
from balancebeam.net.poller import build_data_reactor
from balancebeam.net.ticker import Ticker, sweep_interval
from balancebeam.observability.access_log import AccessLogs
from balancebeam.observability.latency import EventLoopLatency
from balancebeam.observability.recent_requests import RecentRequests
from balancebeam.observability.tracing import SpanCounts, TracingService
from balancebeam.server.certificates import CertificateService
from balancebeam.server.demo import DemoService
from balancebeam.server.frontend import FrontendService
from balancebeam.server.listeners import (
    BindAddress,
    ConnectionFactory,
    InheritedSocket,
    Listener,
    ListenersService,
    bind_address,
)
from balancebeam.server.pool import PoolService, SharedResources
from balancebeam.server.pool_certificates import PoolCertificateService
from balancebeam.server.retired import RetiredServices
from balancebeam.server.route_tables import RouteTableBuilder
from balancebeam.state.service import StateService
from balancebeam.upstream.connect_attempt import ConnectFunction
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.server_set import ServerSet
from balancebeam.web.resource import BalancerResource

T = TypeVar("T")


class ServiceTree(service.MultiService, abc.ABC):
    """
    The services of one balancer, without the operations that change them.

    Attributes:
        settings: the active settings.
        load_settings: returns the settings for a reload, or raises `ConfigError`.
        reactor: the reactor of everything but client and upstream connections.
        pools: the active pools by name.
        frontends: the active frontends by name.
        retired: pools and frontends removed by a reload, with requests in progress.
        admin: the admin API, if enabled.
        state: the state file, if enabled.
        demo: the demo servers, if enabled.
        admin_operations: the operations behind the admin API and registration.
        ticker: the coarse clock and the sweeps for timeouts.
        limiter: rate limits and the counters behind them.
        access_logs: the access log files.
        recent_requests: recent requests for the admin API.
        tracing: the export of spans, if enabled.
        span_counts: the numbers of exported and lost spans.
        certificates: the TLS certificates and contexts of frontends.
        challenges: the ACME challenges of orders in progress.
        acme: orders and renews certificates, if a frontend has names for ACME.
        pool_certificates: watches the files of TLS to servers.
        listeners: the listening sockets.
        shared: resources that all pools share.
        state_changes: the recent changes of the states of servers.
        route_table_builder: builds the route tables of frontends.
        find_challenge: returns the key authorization for the path of an ACME http-01 challenge,
            `None` for an unknown one; for frontends with `redirect_https`.
        draining: whether a graceful shutdown has begun.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        random: Random,
        connect: ConnectFunction,
        clock: Callable[[], float] | None,
        load_settings: Callable[[], Settings] | None,
        find_inherited_sockets: Callable[[], Mapping[str, InheritedSocket]] | None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.load_settings = load_settings or (lambda: self.settings)
        self.reactor = reactor
        self.draining = False
        self.pools: dict[str, PoolService] = {}
        self.frontends: dict[str, FrontendService] = {}
        self.retired = RetiredServices(self)
        self.admin: AdminService | None = None
        self.state: StateService | None = None
        self.demo: DemoService | None = None
        self.admin_operations = AdminOperations(self, build_health_check(reactor))
        self.ticker = Ticker(reactor, required_sweep_interval(settings))
        self.event_loop = EventLoopLatency(self.ticker)
        data_reactor = build_data_reactor(reactor)
        self.limiter = LimiterService(self.ticker, clock or reactor.seconds)
        self.route_table_builder = RouteTableBuilder(
            self.limiter, self.admin_operations, self._build_redirect
        )
        self.access_logs = AccessLogs(self.ticker, self.ticker.wall_time)
        self.recent_requests = RecentRequests(self.ticker)
        self.tracing: TracingService | None = None
        self.span_counts = SpanCounts()
        self.certificates = CertificateService(reactor, self.ticker.wall_time, self.defer_to_thread)
        self.challenges = Challenges(self.certificates.challenges)
        self.find_challenge: ChallengeLookup = self.challenges.respond
        self.acme: AcmeService | None = None
        self.pool_certificates = PoolCertificateService(
            reactor, lambda: self.pools, self.defer_to_thread
        )
        self.state_changes = StateChanges(self.ticker.wall_time)
        self.shared = SharedResources(
            reactor,
            data_reactor,
            self.ticker,
            Resolver(reactor, self.ticker),
            random,
            connect,
            self.state_changes,
        )
        self.listeners = ListenersService(reactor, data_reactor, find_inherited_sockets)

    @abc.abstractmethod
    def reload(self) -> list[str]:
        """Reload the settings; see `BalancerService.reload`. The admin API calls this."""

    @property
    @abc.abstractmethod
    def reloads(self) -> int:
        """The number of successful reloads."""

    @property
    @abc.abstractmethod
    def reloads_failed(self) -> int:
        """The number of rejected reloads."""

    @property
    @abc.abstractmethod
    def reloaded_at(self) -> float:
        """The time of the last reload in seconds since the epoch; 0 if there was none."""

    @abc.abstractmethod
    def not_ready_reason(self) -> str:
        """Why no traffic can be served; empty if the balancer is ready."""

    @property
    def server_set(self) -> ServerSet:
        """The servers of the default pool."""
        return self.default_pool.server_set

    @property
    def default_pool(self) -> PoolService:
        """
        The pool of the first frontend that has one.

        Registered servers and demo servers are added to it.

        Raises:
            LookupError: there is no pool, because all frontends redirect to https.
        """
        name = self.settings.default_pool
        if name is None:
            raise LookupError("no pool is configured")
        return self.pools[name]

    @property
    def default_frontend(self) -> FrontendService:
        """The first frontend that has a pool, or else the first one."""
        settings = self.settings.default_frontend
        if settings is None:
            raise LookupError("no frontend is configured")
        return self.frontends[settings.name]

    @property
    def https_port(self) -> int:
        """The port of the HTTP frontends with TLS: 443 if one has it or there is none."""
        ports = []
        for frontend in self.settings.frontends:
            if frontend.tls is not None and frontend.mode == "http":
                for address in frontend.bind:
                    bound = bind_address(self.listeners.with_real_port(address))
                    if isinstance(bound, TcpAddress):
                        ports.append(bound.port)
        return HTTPS_PORT if HTTPS_PORT in ports or not ports else ports[0]

    def _build_redirect(self, admission: Admission) -> HttpsRedirect:
        return HttpsRedirect(
            admission,
            self.ticker,
            self.reactor.seconds,
            https_port=lambda: self.https_port,
            find_challenge=self._call_find_challenge,
        )

    def _call_find_challenge(self, path: bytes) -> bytes | None:
        # `find_challenge` may be replaced after the redirect was built.
        return self.find_challenge(path)

    @property
    def resource(self) -> BalancerResource:
        """The dispatcher of the default pool, a resource for a `twisted.web` tree."""
        return self.default_pool.dispatcher

    def getServiceNamed(self, name: str) -> service.IService:
        for tree in (self, self.default_pool) if self.pools else (self,):
            if name in tree.namedServices:
                child: service.IService = tree.namedServices[name]
                return child
        raise KeyError(name)

    def save(self) -> Deferred[None]:
        """Write the state file, if enabled. Never fails; errors are logged."""
        return succeed(None) if self.state is None else self.state.save()

    def defer_to_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Run `call` in a thread of the reactor's pool."""
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), call, *arguments)

    def connection_factories(self) -> dict[ListenAddress, ConnectionFactory]:
        """The connection factory of every configured address, the admin API included."""
        owners: list[FrontendService | AdminService] = [*self.frontends.values()]
        if self.admin is not None:
            owners.append(self.admin)
        return {
            address: factory for owner in owners for address, factory in owner.listeners().items()
        }

    def activate_listeners(self, bound: Mapping[BindAddress, Listener]) -> None:
        """Activate the listeners of all frontends, with their connection limits."""
        self.listeners.activate(self.connection_factories(), bound)
        for frontend in self.frontends.values():
            listeners = [
                self.listeners.listeners[bind_address(address)]
                for address in frontend.settings.bind
            ]
            frontend.connection_limit.configure(frontend.settings.max_connections, listeners)

    def bind(
        self, addresses: Iterable[ListenAddress], settings: Settings
    ) -> dict[BindAddress, Listener]:
        """
        Bind the new ones of `addresses`; see `ListenersService.bind`.

        Raises:
            ConfigError: an address is not available; nothing is bound.
        """
        locations = dict(settings.source_locations)
        if settings.admin is not None:
            self.listeners.owner_only_address = bind_address(settings.admin.bind)
            locations.setdefault(str(settings.admin.bind), "--admin")
        return self.listeners.bind(addresses, locations)


def required_sweep_interval(settings: Settings) -> float:
    """The interval in seconds between sweeps that is exact enough for all timeouts."""
    timeouts = [0.0]
    for pool in settings.pools:
        timeouts += (pool.timeouts.connect, pool.timeouts.upstream, pool.queue.timeout)
    for frontend in settings.frontends:
        timeouts += (
            frontend.timeouts.header,
            frontend.timeouts.idle,
            frontend.timeouts.tunnel,
        )
    return sweep_interval(*(timeout for timeout in timeouts if timeout))
