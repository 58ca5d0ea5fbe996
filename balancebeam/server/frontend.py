"""A frontend: the client connections of its listeners, and the routes of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.application import service

from balancebeam.core.addresses import ListenAddress, ProxyProtocolAddress
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import FrontendSettings
from balancebeam.downstream.http1.factory import Http1Factory
from balancebeam.downstream.proxy_protocol import ProxyProtocolFactory
from balancebeam.downstream.tcp.factory import TcpFactory
from balancebeam.downstream.tls import TlsFactory
from balancebeam.net.ticker import Ticker
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.forwarding import ForwardingPolicy, request_id_generator
from balancebeam.proxy.interfaces import Observer
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.route_table import RouteTable
from balancebeam.server.connection_limit import ConnectionLimit
from balancebeam.server.listeners import ConnectionFactory
from balancebeam.server.pool import PoolService
from balancebeam.tls.interfaces import ContextSelector


@frozen
class FrontendTarget:
    """
    The destination of the requests of a frontend.

    Attributes:
        route_table: the routes.
        observer: the observer of finished and rejected requests, such as an access log.
        contexts: the TLS contexts; `None` for plain connections.
    """

    route_table: RouteTable[RouteTarget]
    observer: Observer[Exchange] | None = None
    contexts: ContextSelector | None = None


class FrontendService(service.Service):
    """
    One frontend. Its client connections survive reloads.

    Attributes:
        settings: the active settings.
        route_table: the active routes.
        factory: builds the protocols of client connections, by the mode of the frontend.
        tls_factory: performs TLS handshakes, if the frontend has TLS.
        connection_limit: pauses the listeners at `max_connections`.
    """

    def __init__(
        self, settings: FrontendSettings, target: FrontendTarget, ticker: Ticker, random: Random
    ) -> None:
        self.name = f"frontend:{settings.name}"
        self.settings = settings
        self.route_table = target.route_table
        self._ticker = ticker
        self._random = random
        self.factory: Http1Factory | TcpFactory
        if settings.mode == "tcp":
            self.factory = TcpFactory(target.route_table, ticker, settings.timeouts)
        else:
            self.factory = Http1Factory(
                target.route_table,
                ticker,
                settings.timeouts,
                *self._forwarding_settings(),
                settings.max_body,
            )
            self.factory.context.h2c = settings.h2c
        self.factory.observer = target.observer
        self.tls_factory = TlsFactory(self.factory)
        self._proxy_protocol_factory = ProxyProtocolFactory(self.factory)
        self._set_contexts(target.contexts)
        self.connection_limit = ConnectionLimit(
            self.factory.context.channels,
            self._proxy_protocol_factory.handshakes,
            self.tls_factory.handshakes,
        )

    def _set_contexts(self, contexts: ContextSelector | None) -> None:
        """Accept new connections over TLS with `contexts`, or without TLS."""
        self.tls_factory.contexts = contexts
        accepting = self.factory if contexts is None else self.tls_factory
        self._proxy_protocol_factory.build_channel = accepting.build_channel

    def _forwarding_settings(self) -> tuple[TrustedProxies, ForwardingPolicy]:
        settings = self.settings
        trusted = TrustedProxies(settings.trusted_proxies)
        return trusted, ForwardingPolicy(settings.forwarding, request_id_generator(self._random))

    def apply(self, settings: FrontendSettings, target: FrontendTarget) -> None:
        """Replace settings, routes and observer, for open connections too."""
        self.settings = settings
        self.route_table = target.route_table
        factory = self.factory
        factory.timeouts = settings.timeouts
        factory.set_route_table(target.route_table)
        factory.observer = target.observer
        self._set_contexts(target.contexts)
        if isinstance(factory, Http1Factory):
            factory.max_body = settings.max_body
            factory.context.h2c = settings.h2c
            factory.set_forwarding(*self._forwarding_settings())

    def listeners(self) -> Mapping[ListenAddress, ConnectionFactory]:
        """The connection factory of every listen address."""
        accepting = self.factory if self.tls_factory.contexts is None else self.tls_factory
        return {
            address: self._proxy_protocol_factory
            if isinstance(address, ProxyProtocolAddress)
            else accepting
            for address in self.settings.bind
        }

    def drain(self) -> None:
        """Close idle connections, and every other connection when its request has finished."""
        self.factory.drain()

    def routes_to(self, pool: PoolService) -> bool:
        """Whether a request of this frontend may be dispatched to `pool`."""
        targets = self.route_table.targets
        return any(target.dispatcher is pool.dispatcher for target in targets)

    @property
    def has_connections(self) -> bool:
        """Whether any client is connected."""
        return self.factory.has_connections

    def unregister_timers(self) -> None:
        """Remove the sweeps of this frontend from the ticker; it will not start again."""
        self._ticker.remove(self.factory.sweep)
        self._ticker.remove(self._proxy_protocol_factory.sweep)
        self._ticker.remove(self.tls_factory.sweep)

    def startService(self) -> None:
        super().startService()
        self.factory.resume_accepting()

    def stopService(self) -> Any:
        self.factory.close_all()
        return super().stopService()
