"""
The factory of HTTP client connections, of both versions.

Its channels write directly to their transports. They are used instead of `twisted.web`'s
`HTTPChannel` and `Request`, which cost more CPU than all the rest of a proxied request and
spool request bodies before they pass them on.
"""

from __future__ import annotations

from collections.abc import Mapping

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.factory import PLAINTEXT_REASON, DownstreamFactory
from balancebeam.downstream.http1.channel import Http1Channel
from balancebeam.downstream.http2.channel import Http2Channel
from balancebeam.downstream.http2.context import Http2Context
from balancebeam.downstream.http2.preface import PrefaceDetector
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.http1.grammar import HEAD_END
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.forwarding import ForwardingPolicy
from balancebeam.proxy.rejected import RejectedRequest, first_line
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.route_table import RouteTable
from balancebeam.tls.interfaces import TlsInfo

# RFC 9113, 3.2: the ALPN identifier of HTTP/2 over TLS.
HTTP2_PROTOCOL = "h2"


class Http1Factory(DownstreamFactory):
    """
    Accepts HTTP clients and dispatches their requests along a route table.

    Args:
        table: The routes of requests.
        ticker: The clock of timeouts and timestamps.
        timeouts: Client timeouts.
        trusted_proxies: Proxies whose forwarding headers are believed.
        forwarding: Policy for the forwarding headers that are sent to servers.
        max_body: Largest request body in bytes; `None` for no limit.
    """

    context: Http2Context

    def __init__(
        self,
        table: RouteTable[RouteTarget],
        ticker: Ticker,
        timeouts: FrontendTimeouts,
        trusted_proxies: TrustedProxies,
        forwarding: ForwardingPolicy,
        max_body: int | None = None,
    ) -> None:
        context = Http2Context(
            ticker=ticker,
            timeouts=timeouts,
            default_route=table.default,
            trusted_proxies=trusted_proxies,
            forwarding=forwarding,
            max_body=max_body,
        )
        context.set_route_table(table)
        super().__init__(context)

    @property
    def max_body(self) -> int | None:
        """Largest request body in bytes; `None` for no limit."""
        return self.context.max_body

    @max_body.setter
    def max_body(self, max_body: int | None) -> None:
        self.context.max_body = max_body

    @property
    def rejected_requests(self) -> Mapping[int, int]:
        """Number of requests rejected before dispatch, by response status."""
        return self.context.rejected_requests

    def set_forwarding(self, trusted_proxies: TrustedProxies, forwarding: ForwardingPolicy) -> None:
        """Use these trusted proxies and this policy, for open connections too."""
        context = self.context
        context.trusted_proxies, context.forwarding = trusted_proxies, forwarding
        for channel in self.channels:
            # Only this factory's channels are in the set.
            assert isinstance(channel, (Http1Channel, Http2Channel, PrefaceDetector))
            channel.update_trust()

    def build_channel(
        self, peer: str, proxy_info: ProxyInfo | None = None, tls: TlsInfo | None = None
    ) -> Http1Channel | Http2Channel | PrefaceDetector:
        context = self.context
        if tls is not None:
            channel = Http2Channel if tls.alpn == HTTP2_PROTOCOL else Http1Channel
            return channel(context, peer, proxy_info, tls)
        if not context.h2c:
            return Http1Channel(context, peer, proxy_info)

        def build_version(http2: bool) -> Http1Channel | Http2Channel:
            return (Http2Channel if http2 else Http1Channel)(context, peer, proxy_info)

        return PrefaceDetector(context, build_version)

    def plaintext_reply(self, peer: str, data: bytes) -> bytes:
        """Respond, and count the rejected request; see `DownstreamFactory.plaintext_reply`."""
        response = super().plaintext_reply(peer, data)
        size = len(response.partition(HEAD_END)[2])
        self.context.count_rejected(
            RejectedRequest(peer, first_line(data), 400, PLAINTEXT_REASON, size)
        )
        return response
