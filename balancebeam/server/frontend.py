"""One frontend: who comes in, and where they go."""

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
from balancebeam.downstream.tcp.session import TcpFactory
from balancebeam.net.ticker import Ticker
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import Observer
from balancebeam.proxy.forwarding import ForwardingPolicy, request_id_generator
from balancebeam.routing.route_table import RouteTable
from balancebeam.server.listeners import Clients


@frozen
class Inside:
    """What a frontend leads to: the routes, and who is told of requests that have ended."""

    table: RouteTable
    observer: Observer | None = None


class FrontendService(service.Service):
    """The clients of one frontend, who are served by `site`."""

    def __init__(
        self, settings: FrontendSettings, inside: Inside, ticker: Ticker, random: Random
    ) -> None:
        self.name = f"frontend:{settings.name}"
        self.settings = settings
        self._table = inside.table
        self._ticker = ticker
        self._random = random
        self.site: Http1Factory | TcpFactory
        if settings.mode == "tcp":
            self.site = TcpFactory(inside.table, ticker, settings.timeouts)
        else:
            self.site = Http1Factory(
                inside.table, ticker, settings.timeouts, *self._manners(), settings.max_body
            )
        self.site.observer = inside.observer
        self._proxied = ProxyProtocolFactory(self.site)

    def _manners(self) -> tuple[TrustedProxies, ForwardingPolicy]:
        settings = self.settings
        trusted = TrustedProxies(settings.trusted_proxies)
        return trusted, ForwardingPolicy(settings.forwarding, request_id_generator(self._random))

    def apply(self, settings: FrontendSettings, inside: Inside) -> None:
        """Go by these from now on; connections that are open stay."""
        self.settings = settings
        self._table = inside.table
        site = self.site
        site.timeouts = settings.timeouts
        site.set_route_table(inside.table)
        site.observer = inside.observer
        if isinstance(site, Http1Factory):
            site.max_body = settings.max_body
            site.set_forwarding(*self._manners())

    def clients(self) -> Mapping[ListenAddress, Clients]:
        """Who serves those that come in at each address."""
        return {
            address: self._proxied if isinstance(address, ProxyProtocolAddress) else self.site
            for address in self.settings.bind
        }

    def drain(self) -> None:
        """Let clients go as soon as nothing is in progress."""
        self.site.drain()

    def leads_to(self, pool: Any) -> bool:
        """Whether a client's next request may be one for `pool`, a service."""
        routes = (self._table.default, *self._table.routes)
        return any(route.dispatcher is getattr(pool, "dispatcher", None) for route in routes)

    @property
    def busy(self) -> bool:
        """Whether any client is connected."""
        return self.site.has_connections

    def dismiss(self) -> None:
        """It is gone for good."""
        self._ticker.remove(self.site.sweep)
        self._ticker.remove(self._proxied.sweep)

    def startService(self) -> None:
        super().startService()
        self.site.resume_accepting()

    def stopService(self) -> Any:
        self.site.close_all()
        return super().stopService()
