"""The factory of TCP client connections, whose bytes are relayed unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.context import FrontendContext
from balancebeam.downstream.factory import DownstreamFactory
from balancebeam.downstream.tcp.client import ClientRelay
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.route_table import RouteTable
from balancebeam.tls.interfaces import TlsInfo


class TcpFactory(DownstreamFactory):
    """
    Accepts TCP clients and relays each to a server.

    Args:
        table: The routes of connections. If it has more than the default route, connections
            are routed by the server name in the client's TLS ClientHello (SNI), which is also
            known where TLS is terminated.
        ticker: The clock of timeouts and timestamps.
        timeouts: Client timeouts.

    Attributes:
        rejected_requests: Always empty; there are no requests to parse.
    """

    rejected_requests: Mapping[int, int] = MappingProxyType({})

    def __init__(
        self, table: RouteTable[RouteTarget], ticker: Ticker, timeouts: FrontendTimeouts
    ) -> None:
        context = FrontendContext(ticker=ticker, timeouts=timeouts, default_route=table.default)
        context.set_route_table(table)
        super().__init__(context)

    def build_channel(
        self, peer: str, proxy_info: ProxyInfo | None = None, tls: TlsInfo | None = None
    ) -> ClientRelay:
        return ClientRelay(self.context, peer, proxy_info, tls)
