"""An exchange for frontends that configure Via."""

from __future__ import annotations

from balancebeam.downstream.http1.exchange import Http1Exchange
from balancebeam.protocols.http1.response_head import ResponseHead


class CustomViaExchange(Http1Exchange):
    """
    Writes responses with another Via than the default, or without one.

    A class of its own, so that the fast path of `Http1Exchange` has a constant end.
    """

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        self.downstream_response_started = True
        self.status = head.status
        self.body_bytes_sent = len(body)
        self.stream.transport.write(head.forward_bytes + self._build_head_suffix(head) + body)
        self._finish()
