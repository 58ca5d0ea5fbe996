"""
Reload: replace the settings of a running balancer in one transaction.

As in nginx (src/core/ngx_cycle.c), everything that can fail comes first: log files
are opened and sockets are bound, and only then is anything replaced. What the new
settings do not change keeps its sockets, connections, health history and counters.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger

from balancebeam.admin.auth import Authorizer
from balancebeam.admin.service import AdminService, build_authorizer
from balancebeam.admission.admission import Admission, LimitsByScope
from balancebeam.config.diff import diff_settings
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import FrontendSettings, PoolSettings, Settings
from balancebeam.observability.connection_log import ConnectionLog
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.observers import combine
from balancebeam.observability.tracing import TracingService
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.forwarding import ForwardingPolicy, request_id_generator
from balancebeam.proxy.interfaces import Observer
from balancebeam.server.acme import PreparedAcme, commit_acme, prepare_acme
from balancebeam.server.demo import DemoService
from balancebeam.server.frontend import FrontendService, FrontendTarget
from balancebeam.server.listeners import BindAddress, Listener
from balancebeam.server.pool import PoolService
from balancebeam.server.service_tree import ServiceTree, required_sweep_interval
from balancebeam.server.startup_log import log_listeners
from balancebeam.server.tracing import commit_tracing, prepare_tracing
from balancebeam.state.service import StateService
from balancebeam.state.snapshot import restore, take_snapshot
from balancebeam.tls.sources import PreparedFrontend
from balancebeam.upstream.pool_tls import PoolTls, read_all_tls


class ReloadTransaction:
    """
    A prepared reload. Every step that can fail has succeeded; nothing is active
    yet. Call `commit` or `rollback`.

    Attributes:
        settings: the new settings.
        limits: the rate limits by scope; unchanged limits keep their counters.
        authorizer: the authorization of the admin API, if enabled.
        log_files: the access log files by path, opened if the balancer runs.
        certificates: the certificates by frontend, read and checked.
        acme: the service that orders certificates, if a frontend has names for ACME.
        pool_tls: TLS of the connections to servers, by pool.
        tracing: the export of spans, if enabled.
        bound: the listeners of new addresses, bound if the balancer runs.
    """

    _log = Logger()

    def __init__(
        self,
        tree: ServiceTree,
        settings: Settings,
        limits: LimitsByScope,
        authorizer: Authorizer | None,
        log_files: Mapping[str, LogFile],
        certificates: Mapping[str, PreparedFrontend],
        acme: PreparedAcme | None,
        pool_tls: Mapping[str, PoolTls],
        tracing: TracingService | None,
    ) -> None:
        self._tree = tree
        self.settings = settings
        self.limits = limits
        self.authorizer = authorizer
        self.log_files = log_files
        self.certificates = certificates
        self.acme = acme
        self.pool_tls = pool_tls
        self.tracing = tracing
        self.bound: dict[BindAddress, Listener] = {}

    @classmethod
    def prepare(cls, tree: ServiceTree, settings: Settings) -> ReloadTransaction:
        """
        Do everything that can fail.

        Raises:
            ConfigError: a part of `settings` is invalid or not available; every
                step has been undone.
        """
        try:
            limits = tree.route_table_builder.limits(settings)
            authorizer = None if settings.admin is None else build_authorizer(settings.admin)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        addresses = [address for frontend in settings.frontends for address in frontend.bind]
        if settings.admin is not None:
            addresses.append(settings.admin.bind)
        certificates, pool_tls = _read_certificates(tree, settings)
        acme = prepare_acme(tree, settings)
        tracing = prepare_tracing(tree, settings)
        log_files = tree.access_logs.prepare(settings.frontends)
        transaction = cls(
            tree, settings, limits, authorizer, log_files, certificates, acme, pool_tls, tracing
        )
        if tree.running:
            try:
                transaction.bound = tree.bind(addresses, settings)
            except ConfigError:
                transaction.rollback()
                raise
        return transaction

    def rollback(self) -> None:
        """Close the new listeners and log files."""
        self._tree.listeners.discard(self.bound)
        self._tree.access_logs.rollback(self.log_files)

    def commit(self) -> None:
        """Activate the new settings. No step of this can fail."""
        tree = self._tree
        tree.settings = self.settings
        tree.limiter.commit(self.limits)
        tree.access_logs.commit(self.settings.frontends, self.log_files)
        tree.recent_requests.enable(self.settings.admin is not None)
        tree.certificates.commit(self.certificates)
        commit_tracing(tree, self.tracing)
        self._commit_pools()
        self._commit_frontends()
        self._commit_admin()
        self._commit_state(self.settings.state)
        if tree.running:
            tree.activate_listeners(self.bound)
        commit_acme(tree, self.acme)
        self._commit_demo(self.settings.demo)
        tree.ticker.set_interval(required_sweep_interval(self.settings))
        if tree.running:
            log_listeners(tree, self.bound)

    def _commit_pools(self) -> None:
        tree = self._tree
        old_pools, tree.pools = tree.pools, {}
        for settings in self.settings.pools:
            admission = tree.route_table_builder.pool_admission(settings.name)
            pool = self._commit_pool(settings, old_pools.pop(settings.name, None), admission)
            pool.dispatcher.detach(admission)
            tree.pools[settings.name] = pool
        for removed in old_pools.values():
            tree.retired.add(removed)
        tree.pool_certificates.update()

    def _commit_pool(
        self, settings: PoolSettings, old_pool: PoolService | None, admission: Admission
    ) -> PoolService:
        """Reconfigure `old_pool`, or replace it if there is none or its mode has changed."""
        tree = self._tree
        mode = self.settings.pool_mode(settings.name)
        if old_pool is not None and old_pool.mode == mode:
            old_pool.apply(settings, self.pool_tls[settings.name])
            return old_pool
        if old_pool is not None:
            tree.retired.add(old_pool)
        pool = PoolService(settings, mode, admission, tree.shared, self.pool_tls[settings.name])
        pool.setServiceParent(tree)
        if old_pool is not None:
            # The new pool has its own servers; registered servers, weights and admin
            # states are copied.
            snapshot = take_snapshot({settings.name: old_pool})
            restore(snapshot, {settings.name: pool}, self._log)
        return pool

    def _commit_frontends(self) -> None:
        tree = self._tree
        old_frontends, tree.frontends = tree.frontends, {}
        for settings in self.settings.frontends:
            target = FrontendTarget(
                tree.route_table_builder.build(settings, tree.pools),
                self._build_observer(settings),
                tree.certificates.contexts(settings.name),
                None if tree.tracing is None else tree.tracing.tracer,
            )
            frontend = old_frontends.pop(settings.name, None)
            if frontend is not None and frontend.settings.mode != settings.mode:
                tree.retired.add(frontend)
                frontend = None
            if frontend is None:
                frontend = FrontendService(settings, target, tree.ticker, tree.shared.random)
                frontend.setServiceParent(tree)
            else:
                frontend.apply(settings, target)
            tree.frontends[settings.name] = frontend
        default = self.settings.default_frontend
        if default is not None and not default.redirect_https:
            self._configure_web_resource(default)
        for removed in old_frontends.values():
            tree.retired.add(removed)

    def _configure_web_resource(self, frontend: FrontendSettings) -> None:
        """Apply the settings of `frontend` to requests that a `twisted.web` tree dispatches."""
        tree = self._tree
        tree.pools[frontend.pool].dispatcher.configure(
            frontend,
            ForwardingPolicy(frontend.forwarding, request_id_generator(tree.shared.random)),
            tree.frontends[frontend.name].factory.default.admission,
            self._build_observer(frontend),
        )

    def _build_observer(self, frontend: FrontendSettings) -> Observer[Exchange] | None:
        connection_log = None
        if frontend.log_connections:
            connection_log = ConnectionLog(self._tree.reactor.seconds)
        has_request_id = frontend.forwarding.request_id != "off"
        return combine(
            self._tree.access_logs.observer(frontend),
            self._tree.recent_requests.observer(frontend.name, frontend.mode, has_request_id),
            connection_log,
        )

    def _commit_admin(self) -> None:
        tree, settings = self._tree, self.settings.admin
        if settings is None or self.authorizer is None:
            if tree.admin is not None:
                tree.admin.disownServiceParent()
                tree.admin = None
            return
        if tree.admin is None:
            tree.admin = AdminService(
                tree, tree.admin_operations, tree.reactor, settings, self.authorizer
            )
            tree.admin.setServiceParent(tree)
        else:
            tree.admin.apply(settings, self.authorizer)

    def _commit_state(self, path: str | None) -> None:
        tree = self._tree
        if tree.state is not None and tree.state.path != path:
            tree.state.disownServiceParent()
            tree.state = None
        if tree.state is None and path is not None:
            tree.state = StateService(path, lambda: tree.pools, tree.defer_to_thread)
            tree.state.setServiceParent(tree)

    def _commit_demo(self, count: int) -> None:
        tree = self._tree
        demo = tree.demo
        if demo is not None and (demo.count != count or demo.server_set is not tree.server_set):
            demo.disownServiceParent()
            tree.demo = None
        if tree.demo is None and count:
            tree.demo = DemoService(count, tree.server_set, tree.reactor)
            tree.demo.setServiceParent(tree)


def _read_certificates(
    tree: ServiceTree, settings: Settings
) -> tuple[dict[str, PreparedFrontend], dict[str, PoolTls]]:
    """
    Read the files of TLS on both sides.

    Raises:
        ConfigError: with the problems of both sides.
    """
    problems: list[str] = []
    certificates: dict[str, PreparedFrontend] = {}
    pool_tls: dict[str, PoolTls] = {}
    try:
        certificates = tree.certificates.prepare(settings.frontends)
    except ConfigError as error:
        problems += error.problems
    try:
        current = {name: pool.connections.tls for name, pool in tree.pools.items()}
        pool_tls = read_all_tls(settings.pools, current)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return certificates, pool_tls


class Reloader:
    """
    Loads the settings again and applies them.

    Attributes:
        succeeded: the number of reloads.
        failed: the number of rejected reloads.
        last_success: the time of the last reload in seconds since the epoch; 0 if none.
    """

    _log = Logger()

    def __init__(self, tree: ServiceTree) -> None:
        """
        Args:
            tree: the services to reconfigure with what `tree.load_settings` returns.
        """
        self._tree = tree
        self.succeeded = self.failed = 0
        self.last_success = 0.0

    def reload(self) -> list[str]:
        """See `BalancerService.reload`."""
        tree = self._tree
        try:
            if tree.draining:
                raise ConfigError("draining")
            settings = tree.load_settings()
            changes = diff_settings(tree.settings, settings)
            ReloadTransaction.prepare(tree, settings).commit()
        except ConfigError as error:
            self.failed += 1
            for problem in error.problems:
                self._log.error("reload rejected: {problem}", problem=problem)
            raise
        # A registered server that the file has now is a configured server from here
        # on: it must not stay in the state file as a registered one.
        tree.save()
        self.succeeded += 1
        self.last_success = tree.ticker.wall_time()
        for change in changes or ["no changes"]:
            self._log.info("reloaded: {change}", change=change)
        return changes
