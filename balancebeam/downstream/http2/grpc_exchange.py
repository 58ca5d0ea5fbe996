"""Exchanges of gRPC requests with a deadline."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.downstream.http2.exchange import Http2Exchange, StreamChannel
from balancebeam.protocols.grpc import is_grpc, parse_timeout
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Pipeline
from balancebeam.proxy.timeline import failure_outcome


class DeadlineExchange(Http2Exchange):
    """
    An exchange that ends at the deadline of its request, wherever it is then.

    Before the response, the client receives a trailers-only response with DEADLINE_EXCEEDED;
    afterwards the streams to the client and the server are reset.
    """

    _deadline: IDelayedCall | None = None

    def start_deadline(self, seconds: float) -> None:
        """End the exchange in `seconds`."""
        ticker = self.channel.context.ticker
        self._deadline = ticker.call_later(seconds, self._deadline_expired)

    def _cancel_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _deadline_expired(self) -> None:
        self._deadline = None
        server = self.server
        self.abandon_attempt()
        name = "the server" if server is None else server.name
        failure = UpstreamFailure(FailureKind.DEADLINE, server=name)
        if self.downstream_response_started:
            self.response_aborted(failure)
        elif server is not None:
            self.dispatcher.attempt_failed(self, failure)
        else:
            # Queued.
            self.failure = failure
            self.outcome = failure_outcome(failure)
            self.local_reply(failure.status, failure.public_message)

    # The ends of an exchange

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        self._cancel_deadline()
        super().response_received(head, body)

    def response_aborted(self, failure: UpstreamFailure) -> None:
        self._cancel_deadline()
        super().response_aborted(failure)

    def client_disconnected(self) -> None:
        self._cancel_deadline()
        super().client_disconnected()

    def finish(self, ended: bool) -> None:
        self._cancel_deadline()
        super().finish(ended)


def build_exchange(
    channel: StreamChannel,
    stream_id: int,
    dispatcher: Pipeline[Exchange],
    head: RequestHead,
    upstream_head: bytes,
) -> Http2Exchange:
    """Build the exchange of any request; the time of a deadline runs from now on."""
    text = head.forward_bytes
    seconds = parse_timeout(text) if is_grpc(text) else None
    if seconds is None:
        return Http2Exchange(channel, stream_id, dispatcher, head, upstream_head)
    exchange = DeadlineExchange(channel, stream_id, dispatcher, head, upstream_head)
    exchange.start_deadline(seconds)
    return exchange
