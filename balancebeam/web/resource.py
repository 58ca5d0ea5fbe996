"""
The dispatcher as a `twisted.web` resource.

Mounted in a `twisted.web` tree, `BalancerResource` forwards the requests that it
renders. As the target of a route it also dispatches the requests of every other
protocol, which never call `render`.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Any

from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.admission.admission import Admission
from balancebeam.core.settings import (
    ForwardingSettings,
    FrontendSettings,
    QueueSettings,
    RetrySettings,
)
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.dispatcher import Dispatcher
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.forwarding import ForwardingPolicy, request_id_generator
from balancebeam.proxy.interfaces import Observer
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.selector import SelectorService
from balancebeam.web.exchange import dispatch_web_request


class BalancerResource(Dispatcher, ReverseProxyResource):
    """
    Balances requests over the servers of a pool.

    Of `ReverseProxyResource` it keeps `path` and `reactor`; `render` is its own. The
    attributes below concern rendered requests only, because frontends have settings
    of their own. See `Dispatcher` for the others.

    Attributes:
        path: The prefix of the targets of rendered requests.
        trusted_proxies: The proxies whose forwarding headers are trusted.
        forwarding: Which headers about the client are sent to servers.
        idle_timeout: The seconds after which a client that does not read its
            response is disconnected.
        observer: Receives the finished exchanges.
        parser: Parses the heads of rendered requests.
    """

    isLeaf = True

    def __init__(
        self,
        selector: SelectorService,
        health: HealthService,
        admission: Admission,
        connections: ConnectionPool[Any],
        retries: RetrySettings = RetrySettings(),
        queue: QueueSettings = QueueSettings(),
        trusted_proxies: TrustedProxies = TrustedProxies(()),
        path: bytes = b"",
        forwarding: ForwardingPolicy | None = None,
        pool_name: str = "",
    ) -> None:
        ReverseProxyResource.__init__(self, "", 0, path, connections.reactor)
        Dispatcher.__init__(
            self, selector, health, admission, connections, retries, queue, pool_name
        )
        self.trusted_proxies = trusted_proxies
        self.forwarding = forwarding or ForwardingPolicy(
            ForwardingSettings(), request_id_generator(SystemRandom())
        )
        self.idle_timeout = 60.0
        self.observer: Observer[Exchange] | None = None
        self.parser = RequestHeadParser()

    def configure(
        self,
        frontend: FrontendSettings,
        forwarding: ForwardingPolicy,
        admission: Admission,
        observer: Observer[Exchange] | None,
    ) -> None:
        """
        Treat rendered requests as requests of a frontend.

        Args:
            frontend: Its trusted proxies and its idle timeout are used.
            forwarding: The headers about the client that servers receive.
            admission: The access list and rate limits.
            observer: Receives the finished exchanges.
        """
        self.trusted_proxies = TrustedProxies(frontend.trusted_proxies)
        self.forwarding = forwarding
        self.idle_timeout = frontend.timeouts.idle
        self.admission = admission
        self.observer = observer

    def detach(self, admission: Admission) -> None:
        """Belong to no frontend: use the pool's `admission`, and no observer."""
        self.admission = admission
        self.observer = None

    def render(self, request: Request) -> int | bytes:
        """Forward a request of a `twisted.web` tree."""
        dispatch_web_request(self, request)
        return NOT_DONE_YET
