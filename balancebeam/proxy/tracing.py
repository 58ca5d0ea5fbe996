"""
Tracing of requests: whether a request is sampled, and the `traceparent` that servers receive.

A valid `traceparent` of the client is continued and its sampled flag is kept; otherwise a trace
starts. Only sampled requests get a `RequestTrace`, and with it spans. The context of a request
that is not sampled is forwarded as received, because the proxy adds no span to it.
"""

from __future__ import annotations

import re
from binascii import b2a_hex
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field

from balancebeam.protocols.http1.fields import field_values, remove_fields
from balancebeam.protocols.trace_context import (
    SAMPLED,
    TraceParent,
    encode_traceparent,
    parse_traceparent,
)
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Observer
from balancebeam.proxy.rejected import RejectedRequest

_ID_MASK = 2**64 - 1

# Both fields of a trace in a valid head. It begins with LF instead of CRLF, because one byte is
# found faster than two.
_FIELD = re.compile(rb"\n(?i:trace(?:(parent)|state):)([^\r]*)")


class RandomBits(Protocol):
    """A source of random numbers, such as `random.Random`."""

    def getrandbits(self, count: int, /) -> int:
        """Return an integer of `count` random bits."""


@define(eq=False)
class RequestTrace:
    """
    The spans of one sampled request: one for the request, and one for each attempt.

    Attributes:
        tracer: Makes the ids, and receives the finished exchange.
        trace_id: The trace.
        parent_id: The span of the client; 0 if the trace starts here.
        flags: The flags that are forwarded.
        state: The received `tracestate`, empty without one.
        span_id: The span of the request.
        attempt_ids: The span of each attempt, and of the next one.
        attempt_ends: When each failed attempt ended, in seconds of `Dispatcher.perf_counter`.
    """

    tracer: Tracer
    trace_id: int
    parent_id: int
    flags: int
    state: bytes
    span_id: int
    attempt_ids: list[int]
    attempt_ends: list[float] = field(factory=list)

    def traceparent(self) -> bytes:
        """The value of the field in the next attempt."""
        return encode_traceparent(self.trace_id, self.attempt_ids[-1], self.flags)

    def next_attempt(self, head: bytes, ended_at: float) -> bytes:
        """
        Return the head for another attempt, with a span of its own.

        Args:
            head: The head of the failed attempt.
            ended_at: When that attempt ended.
        """
        old = self.traceparent()
        self.attempt_ends.append(ended_at)
        self.attempt_ids.append(self.tracer.new_id())
        return head.replace(old, self.traceparent(), 1)


class Tracer:
    """
    Starts and continues traces.

    Args:
        sample_ratio: The share of the traces that start here that are sampled, 0 to 1.
        trusted_parents_only: Whether a trace is continued only for trusted proxies.
        random: The source of ids.
        finished: Receives each finished exchange that was sampled, with its trace.

    Attributes:
        finished: See above.
    """

    def __init__(
        self,
        sample_ratio: float,
        trusted_parents_only: bool,
        random: RandomBits,
        finished: Callable[[Any, RequestTrace], None],
    ) -> None:
        # As OpenTelemetry's TraceIdRatioBased: the low 64 bits of the id decide.
        self._bound = round(sample_ratio * 2**64)
        self._trusted_parents_only = trusted_parents_only
        self._random_bits = random.getrandbits
        self.finished = finished

    def trace(self, head: bytes, trusted: bool) -> tuple[bytes, RequestTrace | None]:
        """
        Continue or start the trace of a request.

        Args:
            head: The head that is sent to a server, without the empty line at its end.
            trusted: Whether the client is a trusted proxy.

        Returns:
            The complete head with the fields of the trace, and the trace if the request is
            sampled.
        """
        if _FIELD.search(head) is not None:
            found = [match for match in _FIELD.finditer(head) if match[1]]
            if len(found) == 1 and (trusted or not self._trusted_parents_only):
                parent = parse_traceparent(found[0][2].strip(b" \t"))
                if parent is not None:
                    if not parent.sampled and parent.is_current:
                        return head + b"\r\n", None
                    start, end = found[0].span()
                    return self._continue(head[: start + 1] + head[end + 2 :], parent)
            # "3.2. traceparent": without a valid one, tracestate is not used either.
            head = remove_fields(remove_fields(head, b"traceparent"), b"tracestate")
        # One number for both ids, and one conversion: this runs for every request.
        bits = self._random_bits(192)
        trace_id, span_id = bits >> 64, bits & _ID_MASK
        if not trace_id or not span_id:
            # 0 is not valid.
            return self.trace(head, trusted)
        if trace_id & _ID_MASK >= self._bound:
            # Servers must come to the same decision.
            ids = b2a_hex(bits.to_bytes(24, "big"), b"-", -16)
            return b"%btraceparent: 00-%b-00\r\n\r\n" % (head, ids), None
        trace = RequestTrace(self, trace_id, 0, SAMPLED, b"", span_id, [self.new_id()])
        return _append(head, trace.traceparent()), trace

    def _continue(self, head: bytes, parent: TraceParent) -> tuple[bytes, RequestTrace | None]:
        """Continue the trace of `parent`, whose field was removed from `head`."""
        trace_id, flags = parent.trace_id, parent.flags
        if not parent.sampled:
            # A higher version is replaced by the one that this proxy knows.
            return _append(head, encode_traceparent(trace_id, parent.parent_id, flags)), None
        state = b""
        if _FIELD.search(head) is not None:
            state = b",".join(field_values(head, b"tracestate"))
        ids = self.new_id(), [self.new_id()]
        trace = RequestTrace(self, trace_id, parent.parent_id, flags, state, *ids)
        return _append(head, trace.traceparent()), trace

    def new_id(self) -> int:
        """Return a random id of a span."""
        return self._random_bits(64) or 1


class TraceObserver:
    """Notifies the observer of the frontend, and then the tracer."""

    __slots__ = ("_observer", "_trace")

    def __init__(self, observer: Observer[Exchange] | None, trace: RequestTrace) -> None:
        self._observer = observer
        self._trace = trace

    def exchange_finished(self, exchange: Exchange) -> None:
        """Record the finished exchange."""
        if self._observer is not None:
            self._observer.exchange_finished(exchange)
        self._trace.tracer.finished(exchange, self._trace)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Do nothing: a rejected request has no exchange."""


def _append(head: bytes, traceparent: bytes) -> bytes:
    """Add the field, and the empty line."""
    return b"%btraceparent: %b\r\n\r\n" % (head, traceparent)
