"""Propagation of `traceparent` and `tracestate`, and which requests are traced."""

from __future__ import annotations

import random
from typing import Any

from balancebeam.core.settings import ForwardingSettings
from balancebeam.protocols.trace_context import TraceParent, parse_traceparent
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.forwarding import ForwardingPolicy
from balancebeam.proxy.timeline import all_tries
from balancebeam.proxy.tracing import RequestTrace, Tracer
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import OK, MemoryBalancer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


def request(*lines: str, line: str = "GET / HTTP/1.1") -> bytes:
    """A request with these additional field lines."""
    return "\r\n".join([line, "Host: a", *lines, "", ""]).encode()


def values(head: bytes, name: bytes) -> list[bytes]:
    """The values of a field of a request."""
    lines = (line.partition(b": ") for line in head.split(b"\r\n"))
    return [value for key, _, value in lines if key.lower() == name]


class PropagationTestCase(BalancerTestCase):
    """Runs balancers with a tracer, and keeps the finished traces."""

    def traced(
        self, servers: int = 1, ratio: float = 1.0, trusted_only: bool = False, **settings: Any
    ) -> MemoryBalancer:
        """A balancer that traces requests."""
        balancer = self.balancer(servers, **settings)
        self.finished: list[tuple[Any, RequestTrace]] = []

        def finish(exchange: Any, trace: RequestTrace) -> None:
            self.finished.append((exchange, trace))

        frontend: Any = balancer.service.default_frontend
        tracer = Tracer(ratio, trusted_only, random.Random(1), finish)
        frontend.factory.set_forwarding(
            TrustedProxies(frontend.settings.trusted_proxies),
            ForwardingPolicy(frontend.settings.forwarding, lambda: b"id", tracer),
        )
        return balancer

    def forwarded(self, balancer: MemoryBalancer, *lines: str, **arguments: str) -> bytes:
        """The head that the server receives; the exchange is completed."""
        balancer.client().send(request(*lines, **arguments))
        server = balancer.accept()
        head = server.received()
        server.send(OK)
        self.assertEqual(head.count(b"\r\n\r\n"), 1)
        self.assertTrue(head.endswith(b"\r\n\r\n"))
        return head

    def parent(self, head: bytes) -> TraceParent:
        """The only `traceparent` of a head, which must be valid."""
        (value,) = values(head, b"traceparent")
        parent = parse_traceparent(value)
        assert parent is not None, value
        return parent


class OffTests(PropagationTestCase):
    """Without tracing."""

    def test_fields_are_forwarded_unchanged(self) -> None:
        """Any `traceparent` and `tracestate` are forwarded unchanged, valid or not."""
        lines = ("TraceParent: " + SAMPLED, "traceparent: x", "tracestate: a=1,b=2", "tracestate:")
        for style in (ForwardingSettings(), ForwardingSettings(request_id="make", via=False)):
            head = self.forwarded(self.balancer(forwarding=style), *lines)
            forwarded = [line for line in head.decode().split("\r\n") if "race" in line]
            self.assertEqual(tuple(forwarded), lines)

    def test_no_trace_starts(self) -> None:
        """A request without the fields is forwarded without them."""
        self.assertNotIn(b"trace", self.forwarded(self.balancer()).lower())


class ContinuedTraceTests(PropagationTestCase):
    """Requests with a valid `traceparent`."""

    def test_sampled(self) -> None:
        """The server's parent is the span of the attempt; tracestate is kept."""
        balancer = self.traced(ratio=0.0)
        head = self.forwarded(balancer, "TRACEPARENT: " + SAMPLED, "tracestate: a=1", "X: y")
        ((_, trace),) = self.finished
        self.assertEqual((trace.trace_id, trace.parent_id), (int(TRACE, 16), int(SPAN, 16)))
        self.assertEqual(self.parent(head), TraceParent(int(TRACE, 16), trace.attempt_ids[0], 1))
        self.assertEqual(len({trace.parent_id, trace.span_id, *trace.attempt_ids}), 3)
        self.assertEqual(values(head, b"tracestate"), [b"a=1"])
        self.assertEqual(trace.state, b"a=1")
        self.assertEqual(values(head, b"x"), [b"y"])

    def test_not_sampled(self) -> None:
        """Without the sampled flag there are no spans, and the fields are forwarded unchanged."""
        head = self.forwarded(self.traced(), "traceparent: " + UNSAMPLED, "tracestate: a=1")
        self.assertEqual(values(head, b"traceparent"), [UNSAMPLED.encode()])
        self.assertEqual(values(head, b"tracestate"), [b"a=1"])
        self.assertEqual(self.finished, [])

    def test_higher_version(self) -> None:
        """A higher version is forwarded as version 00, sampled or not."""
        head = self.forwarded(self.traced(), f"traceparent: cc-{TRACE}-{SPAN}-00-x")
        self.assertEqual(values(head, b"traceparent"), [UNSAMPLED.encode()])
        head = self.forwarded(self.traced(), f"traceparent: cc-{TRACE}-{SPAN}-01-x")
        self.assertEqual(self.parent(head).trace_id, int(TRACE, 16))
        self.assertEqual(len(self.finished), 1)

    def test_untrusted_clients(self) -> None:
        """With trusted_parents_only, a client that is no trusted proxy starts a new trace."""
        lines = ("traceparent: " + SAMPLED, "tracestate: a=1")
        head = self.forwarded(self.traced(trusted_only=True, ratio=0.0), *lines)
        self.assertNotEqual(self.parent(head).trace_id, int(TRACE, 16))
        self.assertFalse(self.parent(head).sampled)
        self.assertEqual(values(head, b"tracestate"), [])
        trusted = self.traced(trusted_only=True, ratio=0.0, trusted_proxies=("192.0.2.1",))
        self.assertEqual(self.parent(self.forwarded(trusted, *lines)).trace_id, int(TRACE, 16))


class NewTraceTests(PropagationTestCase):
    """Requests without a valid `traceparent`."""

    def test_started(self) -> None:
        """A new trace has a sampled traceparent with the span of the attempt."""
        head = self.forwarded(self.traced())
        ((_, trace),) = self.finished
        self.assertEqual(trace.parent_id, 0)
        self.assertEqual(self.parent(head), TraceParent(trace.trace_id, trace.attempt_ids[0], 1))

    def test_not_sampled(self) -> None:
        """Servers learn that a new trace is not sampled."""
        head = self.forwarded(self.traced(ratio=0.0))
        self.assertFalse(self.parent(head).sampled)
        self.assertEqual(self.finished, [])

    def test_invalid_fields_are_removed(self) -> None:
        """An invalid or repeated traceparent, or tracestate alone, is replaced by a new trace."""
        for lines in (
            (f"traceparent: 00-{'0' * 32}-{SPAN}-01",),
            (f"traceparent: ff-{TRACE}-{SPAN}-01",),
            ("traceparent:",),
            ("traceparent: " + SAMPLED, "TraceParent: " + SAMPLED),
            (),
        ):
            head = self.forwarded(self.traced(), *lines, "Tracestate: a=1")
            self.assertNotEqual(self.parent(head).trace_id, int(TRACE, 16), lines)
            self.assertEqual(values(head, b"tracestate"), [])

    def test_ratio(self) -> None:
        """The share of sampled traces is the ratio, and their ids differ."""
        balancer = self.traced(ratio=0.25)
        client = balancer.client()
        client.send(request())
        server = balancer.accept()
        server.send(OK)
        for _ in range(999):
            client.send(request())
            server.send(OK)
        self.assertTrue(200 < len(self.finished) < 300, len(self.finished))
        self.assertEqual(len({trace.trace_id for _, trace in self.finished}), len(self.finished))

    def test_other_fields(self) -> None:
        """With tracing, the other fields of a request are the same as without."""
        for lines in (("X-Forwarded-For: 9.9.9.9",), ("TE: trailers",), ()):
            for style in (ForwardingSettings(), ForwardingSettings(forwarded=True, via="edge")):
                plain = self.forwarded(self.balancer(forwarding=style), *lines)
                for ratio in (0.0, 1.0):
                    head = self.forwarded(self.traced(ratio=ratio, forwarding=style), *lines)
                    start = head.index(b"traceparent: ")
                    self.assertEqual(head[:start] + head[start + 70 :], plain)

    def test_responses(self) -> None:
        """With tracing, a response has the same fields as without."""
        responses = set()
        for balancer in (self.balancer(), self.traced(), self.traced(ratio=0.0)):
            client = balancer.client()
            client.send(request())
            balancer.accept().send(OK)
            responses.add(client.received())
        self.assertEqual(len(responses), 1, responses)


class AttemptTests(PropagationTestCase):
    """The spans of attempts."""

    def test_retries(self) -> None:
        """Each attempt has a span of its own, and the trace has when each one ended."""
        balancer = self.traced(2)
        balancer.measure_with_clock()
        client = balancer.client()
        client.send(request("traceparent: " + SAMPLED))
        first = balancer.accept()
        parents = [self.parent(first.received())]
        balancer.clock.advance(0.5)
        first.reset()
        second = balancer.accept()
        parents.append(self.parent(second.received()))
        second.send(OK)
        ((exchange, trace),) = self.finished
        self.assertEqual([parent.parent_id for parent in parents], trace.attempt_ids)
        self.assertEqual(len(set(trace.attempt_ids)), 2)
        self.assertEqual(len(all_tries(exchange)), 2)
        self.assertEqual(trace.attempt_ends, [exchange.received_at + 0.5])

    def test_body_is_sent_again(self) -> None:
        """A retry sends the body again, after its own traceparent."""
        balancer = self.traced(2)
        put = request("Content-Length: 5", line="PUT / HTTP/1.1") + b"hello"
        balancer.client().send(put)
        first = balancer.accept()
        sent = first.received()
        self.assertTrue(sent.endswith(b"\r\n\r\nhello"))
        first.reset()
        second = balancer.accept().received()
        self.assertTrue(second.endswith(b"\r\n\r\nhello"))
        self.assertEqual(self.parent(second).trace_id, self.parent(sent).trace_id)
        self.assertNotEqual(self.parent(second), self.parent(sent))

    def test_all_attempts_fail(self) -> None:
        """A request that no server has answered is finished with all of its attempts."""
        balancer = self.traced(2)
        balancer.client().send(request())
        balancer.connectors[-1].refuse()
        balancer.connectors[-1].refuse()
        ((exchange, trace),) = self.finished
        self.assertEqual(exchange.status, 502)
        self.assertEqual(len(all_tries(exchange)), 2)
        self.assertEqual(len(trace.attempt_ends), 2)

    def test_local_replies_and_lost_clients(self) -> None:
        """Rejected and abandoned requests are finished once."""
        balancer = self.traced(deny=("192.0.2.1",))
        balancer.client().send(request())
        ((exchange, _),) = self.finished
        self.assertEqual((exchange.status, all_tries(exchange)), (403, ()))
        balancer = self.traced()
        client = balancer.client()
        client.send(request())
        client.reset()
        self.assertEqual(len(self.finished), 1)

    def test_observer_of_the_frontend(self) -> None:
        """The logs of the frontend are notified of traced requests too."""
        balancer = self.traced()
        seen: list[Any] = []

        class Recorder:
            def exchange_finished(self, exchange: Any) -> None:
                seen.append(exchange)

            def request_rejected(self, request: Any) -> None:
                seen.append(request)

        balancer.service.default_frontend.factory.observer = Recorder()
        self.forwarded(balancer)
        self.assertEqual(len(seen), 1)
        self.assertEqual(len(self.finished), 1)
