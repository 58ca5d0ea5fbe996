"""
The balancer as a tree of services.

Starting the tree listens; stopping it closes everything. The children have
names, so that whoever embeds the balancer finds them:

    balancer.getServiceNamed("frontend:web")  the clients of a frontend
    balancer.getServiceNamed("pool:app")      the servers of a pool; of its children
        .getServiceNamed("selector")          says which server is tried first,
        .getServiceNamed("health")            knows which are out, and why,
        .getServiceNamed("checker")           asks how they are, if that is wanted,
        .getServiceNamed("connections")       has the connections to them
    balancer.getServiceNamed("limiter")       who is admitted
    balancer.getServiceNamed("listeners")     the listening sockets
    balancer.getServiceNamed("access-logs")   the files of what has ended
    balancer.getServiceNamed("admin")         the operator's way in, if there is one

What the first pool has is found by its short name as well: `selector`, `health`,
`checker`, `connections`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import define
from twisted.application import service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from balancebeam.admin.auth import Authorizer
from balancebeam.admin.operations import AdminOperations
from balancebeam.admin.service import AdminService, build_authorizer, build_health_check
from balancebeam.admission.admission import LimitsByScope
from balancebeam.admission.limiter import LimiterService
from balancebeam.config.diff import diff_settings
from balancebeam.core.errors import StartupError
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import FrontendSettings, Settings
from balancebeam.net import transport
from balancebeam.net.poller import build_data_reactor
from balancebeam.net.ticker import Ticker, sweep_interval
from balancebeam.observability.access_log import AccessLogs
from balancebeam.observability.connection_log import ConnectionLog
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.observers import combine
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.dispatcher import BalancerResource
from balancebeam.proxy.exchange import Observer
from balancebeam.proxy.forwarding import ForwardingPolicy, request_id_generator
from balancebeam.server.demo import DemoService
from balancebeam.server.frontend import FrontendService, FrontendTarget
from balancebeam.server.listeners import (
    InheritedSocket,
    Listener,
    ListenersService,
    bind_address,
    restore_stderr,
    validate_endpoint,
)
from balancebeam.server.pool import PoolService, SharedResources
from balancebeam.server.retired import RetiredServices
from balancebeam.server.route_tables import RouteTableBuilder
from balancebeam.state.service import StateService
from balancebeam.state.snapshot import restore, take_snapshot
from balancebeam.upstream.connection_pool import ConnectFunction
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.server_set import ServerSet


@define
class ReloadTransaction:
    """All of a change that can fail, done; nothing of it is in use yet."""

    settings: Settings
    limits: LimitsByScope
    log_files: Mapping[str, LogFile]
    bound: dict[Any, Listener]
    authorizer: Authorizer | None


class BalancerService(service.MultiService):
    """
    Everything one balancer consists of.

    `resource` is the dispatcher of the first frontend's pool, for mounting in a
    `twisted.web` tree; where nothing is bound that is the only way in. `clock`
    gives seconds and never runs backwards, for limits; without one the
    reactor's is taken. `load_settings` says by which settings to go when everything is
    read again. `find_inherited_sockets` finds sockets that listen already, by address.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        random: Random,
        connect: ConnectFunction = transport.connect,
        clock: Callable[[], float] | None = None,
        load_settings: Callable[[], Settings] | None = None,
        find_inherited_sockets: Callable[[], Mapping[str, InheritedSocket]] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.reactor = reactor
        self.draining = False
        self.reloads = self.reloads_failed = 0
        # When it was last, in seconds since the epoch.
        self.reloaded_at = 0.0
        self._load_settings = load_settings or (lambda: self.settings)
        self.admin_operations = AdminOperations(self, build_health_check(reactor))
        self.admin: AdminService | None = None
        self.state: StateService | None = None
        self.pools: dict[str, PoolService] = {}
        self.frontends: dict[str, FrontendService] = {}
        self.retired = RetiredServices(self)
        self.ticker = Ticker(reactor, _sweep_interval(settings))
        data_reactor = build_data_reactor(reactor)
        self.limiter = LimiterService(self.ticker, clock or reactor.seconds)
        self._route_table_builder = RouteTableBuilder(self.limiter, self.admin_operations)
        self.access_logs = AccessLogs(self.ticker, self.ticker.wall_time)
        self._shared = SharedResources(
            reactor, data_reactor, self.ticker, Resolver(reactor, self.ticker), random, connect
        )
        self.listeners = ListenersService(reactor, data_reactor, find_inherited_sockets)
        for frontend in settings.frontends:
            for address in frontend.bind:
                validate_endpoint(address, reactor)
        # Twisted starts children in this order, and what is listened to comes last.
        self.ticker.setServiceParent(self)
        self.limiter.setServiceParent(self)
        # Stopped after those who write to them.
        self.access_logs.setServiceParent(self)
        self.demo: DemoService | None = None
        self._commit(self._prepare(settings))
        self.listeners.setServiceParent(self)
        self.ticker.add(self.retired.reap)

    # What there is.

    @property
    def server_set(self) -> ServerSet:
        """The servers of the first pool."""
        return self.default_pool.server_set

    @property
    def default_pool(self) -> PoolService:
        """Where servers register, and what is mounted."""
        frontends = self.settings.frontends
        return self.pools[frontends[0].pool if frontends else self.settings.pools[0].name]

    @property
    def default_frontend(self) -> FrontendService:
        """The first frontend."""
        return next(iter(self.frontends.values()))

    @property
    def resource(self) -> BalancerResource:
        """The dispatcher of the first pool."""
        return self.default_pool.dispatcher

    def getServiceNamed(self, name: str) -> service.IService:
        for tree in (self, self.default_pool):
            if name in tree.namedServices:
                found: service.IService = tree.namedServices[name]
                return found
        raise KeyError(name)

    # Starting and stopping.

    def privilegedStartService(self) -> None:
        # Here, so that `twistd --uid` may use low ports.
        self._listen()
        super().privilegedStartService()

    def startService(self) -> None:
        self.draining = False
        self._listen()
        super().startService()

    def _listen(self) -> None:
        clients = self._connection_factories()
        problems: list[str] = []
        opened: dict[Any, Listener] = {}
        try:
            self.access_logs.open()
        except StartupError as error:
            problems += error.problems
        try:
            opened = self._bind(clients, self.settings)
        except StartupError as error:
            problems += error.problems
        if problems:
            self.access_logs.close()
            self.listeners.activate({}, opened)
            restore_stderr()
            raise StartupError.from_problems(problems)
        self.listeners.activate(clients, opened)

    def stopService(self) -> Any:
        self.admin_operations.stop()
        return super().stopService()

    def drain(self, handing_over: bool = False) -> Deferred[None]:
        """
        Let everybody go: listen no more, close idle clients, and let the others
        finish, but for no longer than the settings say. Fires when nobody is
        left. One that is `handing_over` by another leaves the operator to that.
        """
        self.draining = True
        # Who operates it may want to see how it goes.
        admin = None if handing_over else self.admin
        if self.running:
            self.listeners.activate({} if admin is None else admin.listeners(), {})
        for frontend in self.frontends.values():
            frontend.drain()

        def drained(everybody: bool) -> None:
            if not everybody:
                self.log.warn("the time for draining is over, and not everybody has left")

        waiting = self.ticker.wait_for(self._is_drained, self.settings.drain_timeout)
        return waiting.addCallback(drained)

    def _is_drained(self) -> bool:
        if any(one.has_connections for one in (*self.frontends.values(), *self.retired)):
            return False
        # Some came by a door that is not ours.
        return not any(pool.has_active_requests for pool in self.pools.values())

    # Changing everything while it runs.

    def apply(self, settings: Settings) -> None:
        """
        Go by `settings` from now on. What they do not change is not touched, and
        nothing in progress is cut. Raises `StartupError`, and then nothing has
        changed, if a part of it cannot be had.
        """
        self._commit(self._prepare(settings))
        self.ticker.set_interval(_sweep_interval(settings))

    def reload(self) -> list[str]:
        """
        Read the settings again, and go by them; what has changed, a line each.
        Raises `StartupError`, and then nothing has changed.
        """
        try:
            if self.draining:
                raise StartupError.from_problems(["it is stopping"])
            settings = self._load_settings()
            changed = diff_settings(self.settings, settings)
            self.apply(settings)
        except StartupError as refused:
            self.reloads_failed += 1
            for problem in refused.problems:
                self.log.error("not reloaded: {problem}", problem=problem)
            raise
        # A server that was registered, and is configured by now, leaves with the file's next.
        self.save()
        self.reloads += 1
        self.reloaded_at = self.ticker.wall_time()
        for line in changed or ["nothing has changed"]:
            self.log.info("reloaded: {line}", line=line)
        return changed

    def save(self) -> Deferred[None]:
        """Write down what was set at run time, if that is wanted; never fails."""
        return succeed(None) if self.state is None else self.state.save()

    def not_ready_reason(self) -> str:
        """Why no traffic can be served, if it cannot."""
        if self.draining or not self.running:
            return "draining" if self.draining else "it is not running"
        for frontend in self.settings.frontends:
            if not any(self.pools[frontend.pool].server_set.tiers):
                return f"the pool {frontend.pool} has no server to try"
        return ""

    def _prepare(self, settings: Settings) -> ReloadTransaction:
        """Do all that can fail. Raises `StartupError`."""
        try:
            scopes = self._route_table_builder.limits(settings)
            authorizer = None if settings.admin is None else build_authorizer(settings.admin)
        except ValueError as error:
            raise StartupError.from_problems([str(error)]) from None
        wanted = [address for frontend in settings.frontends for address in frontend.bind]
        if settings.admin is not None:
            wanted.append(settings.admin.bind)
        logs = self.access_logs.prepare(settings.frontends)
        opened: dict[Any, Listener] = {}
        if self.running:
            try:
                opened = self._bind(wanted, settings)
            except StartupError:
                self.access_logs.rollback(logs)
                raise
        return ReloadTransaction(settings, scopes, logs, opened, authorizer)

    def _bind(self, addresses: Iterable[Any], settings: Settings) -> dict[Any, Listener]:
        said = dict(settings.source_locations)
        if settings.admin is not None:
            self.listeners.owner_only_address = bind_address(settings.admin.bind)
            said.setdefault(str(settings.admin.bind), "--admin")
        return self.listeners.bind(addresses, said)

    def _commit(self, transaction: ReloadTransaction) -> None:
        """Make `transaction` the truth. Nothing here can fail."""
        settings = self.settings = transaction.settings
        self.limiter.commit(transaction.limits)
        self.access_logs.commit(settings.frontends, transaction.log_files)
        self._commit_pools(settings)
        self._commit_frontends(settings)
        self._commit_admin(settings, transaction.authorizer)
        self._commit_state(settings.state)
        if self.running:
            self.listeners.activate(self._connection_factories(), transaction.bound)
        self._commit_demo(settings.demo)

    def _commit_pools(self, settings: Settings) -> None:
        before, self.pools = self.pools, {}
        for pool in settings.pools:
            mode = settings.pool_mode(pool.name)
            admission = self._route_table_builder.pool_admission(pool.name)
            known = before.pop(pool.name, None)
            other_mode = known if known is not None and known.mode != mode else None
            if other_mode is not None:
                self.retired.add(other_mode)
                known = None
            if known is None:
                known = PoolService(pool, mode, admission, self._shared)
                known.setServiceParent(self)
                if other_mode is not None:
                    # The servers are others now, but the operator's wishes the same.
                    restore(take_snapshot({pool.name: other_mode}), {pool.name: known}, self.log)
            else:
                known.apply(pool)
            known.dispatcher.admission = admission
            known.dispatcher.observer = None
            self.pools[pool.name] = known
        for gone in before.values():
            self.retired.add(gone)

    def _commit_frontends(self, settings: Settings) -> None:
        before, self.frontends = self.frontends, {}
        for frontend in settings.frontends:
            target = FrontendTarget(
                self._route_table_builder.build(frontend, self.pools),
                self._build_observer(frontend),
            )
            known = before.pop(frontend.name, None)
            if known is not None and known.settings.mode != frontend.mode:
                self.retired.add(known)
                known = None
            if known is None:
                known = FrontendService(frontend, target, self.ticker, self._shared.random)
                known.setServiceParent(self)
            else:
                known.apply(frontend, target)
            self.frontends[frontend.name] = known
        if settings.frontends:
            self._configure_web_resource(settings.frontends[0])
        for gone in before.values():
            self.retired.add(gone)

    def _configure_web_resource(self, frontend: FrontendSettings) -> None:
        """What comes in through a `twisted.web` tree is treated as by `frontend`."""
        dispatcher = self.pools[frontend.pool].dispatcher
        dispatcher.trusted_proxies = TrustedProxies(frontend.trusted_proxies)
        dispatcher.forwarding = ForwardingPolicy(
            frontend.forwarding, request_id_generator(self._shared.random)
        )
        dispatcher.idle_timeout = frontend.timeouts.idle
        dispatcher.admission = self.frontends[frontend.name].factory.default.admission
        dispatcher.observer = self.access_logs.observer(frontend)

    def _build_observer(self, frontend: FrontendSettings) -> Observer | None:
        talkative = ConnectionLog(self.reactor.seconds) if frontend.log_connections else None
        return combine(self.access_logs.observer(frontend), talkative)

    def _connection_factories(self) -> dict[Any, Any]:
        doors: list[FrontendService | AdminService] = [*self.frontends.values()]
        if self.admin is not None:
            doors.append(self.admin)
        return {address: one for door in doors for address, one in door.listeners().items()}

    def _commit_admin(self, settings: Settings, authorizer: Authorizer | None) -> None:
        if settings.admin is None or authorizer is None:
            if self.admin is not None:
                self.admin.disownServiceParent()
                self.admin = None
            return
        if self.admin is None:
            self.admin = AdminService(
                self, self.admin_operations, self.reactor, settings.admin, authorizer
            )
            self.admin.setServiceParent(self)
        self.admin.apply(settings.admin, authorizer)

    def _commit_state(self, path: str | None) -> None:
        if self.state is not None and self.state.path != path:
            self.state.disownServiceParent()
            self.state = None
        if self.state is None and path is not None:
            self.state = StateService(path, lambda: self.pools, self._defer_to_thread)
            self.state.setServiceParent(self)

    def _defer_to_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        deferred: Deferred[Any] = deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), call, *arguments
        )
        return deferred

    def _commit_demo(self, count: int) -> None:
        if self.demo is None and count:
            self.demo = DemoService(count, self.server_set, self.reactor)
            self.demo.setServiceParent(self)
        elif self.demo is not None and (
            self.demo.count != count or self.demo.server_set is not self.server_set
        ):
            self.demo.disownServiceParent()
            self.demo = None
            self._commit_demo(count)


def _sweep_interval(settings: Settings) -> float:
    limits = [0.0]
    for pool in settings.pools:
        limits += (pool.timeouts.connect, pool.timeouts.upstream)
    for frontend in settings.frontends:
        times = frontend.timeouts
        limits += (times.header, times.idle, times.tunnel)
    return sweep_interval(*(limit for limit in limits if limit))


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
