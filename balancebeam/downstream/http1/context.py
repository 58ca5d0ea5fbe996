"""State that an `Http1Factory` shares with its connections."""

from __future__ import annotations

from collections import defaultdict

from attrs import Factory, define

from balancebeam.downstream.context import FrontendContext
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.forwarding import ForwardingPolicy
from balancebeam.proxy.rejected import RejectedRequest


@define(eq=False, kw_only=True)
class Http1Context(FrontendContext):
    """
    A `FrontendContext` with the parts that only HTTP needs.

    Attributes:
        trusted_proxies: Proxies whose forwarding headers are believed.
        forwarding: Policy for the forwarding headers that are sent to servers.
        max_body: Largest request body in bytes; `None` for no limit.
        h2c: Whether plain connections may begin with the preface of HTTP/2.
        parser: Parser of request heads, shared because it caches header lines.
        secure_parser: Parser of the request heads that are received over TLS, likewise.
        rejected_requests: Number of requests rejected before dispatch, by response status.
    """

    trusted_proxies: TrustedProxies
    forwarding: ForwardingPolicy
    max_body: int | None = None
    h2c: bool = False
    parser: RequestHeadParser = Factory(RequestHeadParser)
    secure_parser: RequestHeadParser = Factory(lambda: RequestHeadParser(secure=True))
    rejected_requests: defaultdict[int, int] = Factory(lambda: defaultdict(int))

    def count_rejected(self, request: RejectedRequest) -> None:
        """Count `request` and notify the observer."""
        self.rejected_requests[request.status] += 1
        if self.observer is not None:
            self.observer.request_rejected(request)
