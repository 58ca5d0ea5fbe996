"""The timeline of exchanges: phases, attempts and how they ended."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.api import Timeouts
from balancebeam.core.settings import LimitSettings, QueueSettings, RetrySettings
from balancebeam.proxy import timeline
from balancebeam.proxy.timeline import Try
from tests.helpers.memory import GET, OK, MemoryBalancer
from tests.helpers.upgrade import UPGRADE_REQUEST, UPGRADE_RESPONSE

POST = b"POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\nhello"
REFUSED = "could not be reached: Connection was refused by other side."


class Recorder:
    """An observer that keeps the finished exchanges."""

    def __init__(self) -> None:
        self.exchanges: list[Any] = []

    def exchange_finished(self, exchange: Any) -> None:
        """Keep `exchange`."""
        self.exchanges.append(exchange)

    def request_rejected(self, request: Any) -> None:
        """Do nothing: a rejected request is no exchange."""


class TimelineTestCase(SynchronousTestCase):
    """Builds balancers that record their exchanges, with durations on their clock."""

    def balancer(self, servers: int = 1, **settings: Any) -> MemoryBalancer:
        """A balancer; it is stopped after the test."""
        balancer = MemoryBalancer(servers, **settings)
        balancer.measure_with_clock()
        self.recorder = Recorder()
        balancer.service.default_frontend.factory.observer = self.recorder
        self.addCleanup(balancer.stop)
        return balancer

    def finished(self) -> Any:
        """The only finished exchange, whose times must be in order."""
        (exchange,) = self.recorder.exchanges
        times = [exchange.received_at, exchange.attempt_at, exchange.finished_at]
        if exchange.first_byte_at:
            times.insert(2, exchange.first_byte_at)
        self.assertEqual(times, sorted(times))
        return exchange

    def assert_ended(self, expected: str) -> None:
        """The only exchange has ended as `expected`."""
        self.assertEqual(timeline.ended(self.finished()), expected)


class PhaseTests(TimelineTestCase):
    """Where the time was spent."""

    def test_connection_response_and_body(self) -> None:
        """Connecting, the wait for the response and its body are separate phases."""
        balancer = self.balancer()
        balancer.client().send(GET)
        balancer.clock.advance(0.125)
        server = balancer.accept()
        balancer.clock.advance(0.25)
        server.send(OK[:-3])
        balancer.clock.advance(0.5)
        server.send(OK[-3:])
        exchange = self.finished()
        expected = {"queue": None, "connect": 0.125, "first_byte": 0.25, "body": 0.5}
        self.assertEqual(timeline.phases(exchange), expected)
        self.assertEqual(timeline.duration(exchange), 0.875)
        (only,) = timeline.all_tries(exchange)
        self.assertEqual((only.server, only.result), ("10.0.0.1:80", "200"))
        self.assertEqual(only.seconds, 0.875)
        self.assertEqual((exchange.route.frontend, exchange.route.name), ("web", ""))
        self.assertEqual(timeline.ended(exchange), "complete")

    def test_reused_connection(self) -> None:
        """On a reused connection nothing is connected; a short response begins at its end."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        self.recorder.exchanges.clear()
        client.send(GET)
        balancer.clock.advance(0.5)
        server.send(OK)
        exchange = self.finished()
        self.assertEqual(
            timeline.phases(exchange),
            {"queue": None, "connect": None, "first_byte": 0.5, "body": 0.0},
        )

    def test_queue(self) -> None:
        """The time in the queue is no part of the attempt."""
        balancer = self.balancer(queue=QueueSettings(10, 5.0))
        balancer.servers[0].max_in_flight = 1
        balancer.client().send(GET)
        server = balancer.accept()
        balancer.client().send(GET)
        balancer.clock.advance(0.25)
        server.send(OK)
        self.recorder.exchanges.clear()
        balancer.clock.advance(0.5)
        server.send(OK)
        exchange = self.finished()
        self.assertEqual(exchange.queue_seconds, 0.25)
        self.assertEqual(timeline.phases(exchange)["first_byte"], 0.5)

    def test_failed_attempts_come_first(self) -> None:
        """Failed attempts are kept in order, each with its reason, result and duration."""
        balancer = self.balancer(2)
        balancer.client().send(GET)
        balancer.clock.advance(0.5)
        balancer.connectors[-1].refuse()
        balancer.clock.advance(0.25)
        balancer.accept().send(OK)
        exchange = self.finished()
        self.assertEqual(
            timeline.all_tries(exchange),
            (
                Try("10.0.0.1:80", "next turn", REFUSED, 0.5),
                Try("10.0.0.2:80", "following turn", "200", 0.25),
            ),
        )
        self.assertEqual(exchange.connect_seconds, 0.25)
        self.assertEqual(timeline.ended(exchange), "complete")

    def test_stale_connection(self) -> None:
        """The attempt on a stale connection is a failed one, followed by a new connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        self.recorder.exchanges.clear()
        client.send(GET)
        server.reset()
        balancer.accept().send(OK)
        results = [attempt.result for attempt in timeline.all_tries(self.finished())]
        self.assertEqual(results, ["closed the idle connection", "200"])


class EndedTests(TimelineTestCase):
    """The word for the end of an exchange."""

    def test_client_disconnects(self) -> None:
        """A client that disconnects before the response ended the exchange."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept()
        client.reset()
        self.assert_ended("client")
        self.assertEqual(self.finished().first_byte_at, 0.0)
        self.assertEqual(timeline.all_tries(self.finished())[0].result, "client disconnected")

    def test_server_cuts_the_response(self) -> None:
        """A response that was cut off is the server's end, and its attempt has the failure."""
        balancer = self.balancer()
        balancer.client().send(GET)
        server = balancer.accept()
        server.send(OK[:-3])
        server.reset()
        self.assert_ended("server")
        (only,) = timeline.all_tries(self.finished())
        self.assertEqual(only.result, "closed the connection")

    def test_no_server_responds(self) -> None:
        """A 502 after failed attempts ended at the server; no attempt is listed twice."""
        balancer = self.balancer()
        balancer.client().send(GET)
        balancer.connectors[-1].refuse()
        self.assert_ended("server")
        self.assertEqual(len(timeline.all_tries(self.finished())), 1)

    def test_timeout(self) -> None:
        """A server that does not respond in time."""
        balancer = self.balancer(retries=RetrySettings(attempts=1))
        balancer.client().send(GET)
        balancer.accept()
        balancer.advance(62)
        self.assert_ended("timeout")

    def test_no_server(self) -> None:
        """A pool without servers to try."""
        balancer = self.balancer()
        balancer.service.pools["app"].health.set_weight(balancer.servers[0], 0)
        balancer.client().send(GET)
        self.assert_ended("no-server")
        self.assertEqual(timeline.all_tries(self.finished()), ())

    def test_limit(self) -> None:
        """A request over a limit has the name of the limit."""
        balancer = self.balancer(limits=(LimitSettings(1, name="few"),))
        balancer.client().send(GET)
        balancer.accept().send(OK)
        self.recorder.exchanges.clear()
        balancer.client().send(GET)
        self.assert_ended("limit")
        self.assertEqual(self.finished().limit_name, "few")

    def test_unreadable_body(self) -> None:
        """A request whose body cannot be read is refused."""
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        balancer = self.balancer()
        client = balancer.client()
        client.send(head)
        client.send(b"no chunk\r\n")
        balancer.accept()
        self.assert_ended("refused")

    def test_client_stalls_its_body(self) -> None:
        """A client that does not send the rest of its body."""
        balancer = self.balancer()
        balancer.client().send(POST[:-2])
        balancer.accept()
        balancer.advance(62)
        self.assert_ended("client")

    def test_client_stalls_its_response(self) -> None:
        """A client that does not read the response within the idle timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.transport.stalled = True
        client.send(GET)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
        balancer.accept().send(head + bytes(100_000))
        balancer.advance(62)
        self.assert_ended("client")

    def test_server_stalls_its_response(self) -> None:
        """A server that does not complete its response in time."""
        balancer = self.balancer()
        balancer.client().send(GET)
        balancer.accept().send(OK[:-3])
        balancer.advance(62)
        self.assert_ended("timeout")

    def test_access_list(self) -> None:
        """A client that the access list denies is refused."""
        balancer = self.balancer(deny=("192.0.2.0/24",))
        balancer.client().send(GET)
        self.assert_ended("refused")
        self.assertEqual(self.finished().status, 403)

    def test_drain_timeout(self) -> None:
        """A response that is not complete when the graceful shutdown ends is cut off."""
        balancer = self.balancer()
        balancer.client().send(GET)
        balancer.accept().send(OK[:-3])
        balancer.service.drain()
        balancer.advance(5)
        self.assertEqual(self.recorder.exchanges, [])
        balancer.service.stopService()
        balancer.finish_closing()
        self.assert_ended("draining")

    def test_balancer_stops(self) -> None:
        """A request that is cut off when the balancer stops."""
        balancer = self.balancer()
        balancer.client().send(GET)
        balancer.accept()
        balancer.service.stopService()
        balancer.finish_closing()
        self.assert_ended("draining")

    def test_queue_timeout(self) -> None:
        """A request that expires in the queue has got no server, and the time there is known."""
        balancer = self.balancer(queue=QueueSettings(10, 1.0))
        balancer.servers[0].max_in_flight = 1
        balancer.client().send(GET)
        balancer.accept()
        balancer.client().send(GET)
        balancer.advance(3)
        self.assert_ended("no-server")
        self.assertGreaterEqual(self.finished().queue_seconds, 1.0)


class TunnelTests(TimelineTestCase):
    """How tunnels of HTTP/1.1 upgrades end."""

    def open_tunnel(self, **settings: Any) -> MemoryBalancer:
        """A balancer with one tunnel."""
        balancer = self.balancer(**settings)
        self.client = balancer.client()
        self.client.send(UPGRADE_REQUEST)
        self.server = balancer.accept()
        self.server.send(UPGRADE_RESPONSE)
        self.client.received()
        return balancer

    def test_idle_timeout(self) -> None:
        """An idle tunnel ends with its timeout."""
        self.open_tunnel(timeouts=Timeouts(tunnel=5.0)).advance(8)
        self.assertTrue(self.client.transport.aborted)
        self.assert_ended("timeout")

    def test_half_closed_tunnel(self) -> None:
        """A tunnel with one open side ends with the idle timeout."""
        balancer = self.open_tunnel(timeouts=Timeouts(idle=5.0))
        self.client.half_close()
        balancer.advance(8)
        self.assert_ended("timeout")

    def test_client_that_does_not_read(self) -> None:
        """A client that acknowledges nothing is the cause, not the idle timeout of the tunnel."""
        balancer = self.open_tunnel(timeouts=Timeouts(tunnel=5.0, idle=5.0))
        self.client.transport.stalled = True
        self.server.send(bytes(100_000))
        balancer.advance(8)
        self.assert_ended("client")

    def test_both_sides_close(self) -> None:
        """A tunnel that both sides have closed is complete, whichever comes first."""
        for first in ("client", "server"):
            with self.subTest(first=first):
                balancer = self.open_tunnel()
                sides = [self.client, self.server]
                for side in sides if first == "client" else reversed(sides):
                    side.half_close()
                balancer.finish_closing()
                self.assert_ended("complete")
                self.assertEqual(timeline.all_tries(self.finished())[0].result, "101")

    def test_resets(self) -> None:
        """A tunnel that is reset ends at the side that has sent the reset."""
        for side in ("client", "server"):
            with self.subTest(side=side):
                balancer = self.open_tunnel()
                getattr(self, side).reset()
                balancer.finish_closing()
                self.assert_ended(side)

    def test_stop(self) -> None:
        """The balancer stops."""
        balancer = self.open_tunnel()
        balancer.service.stopService()
        balancer.finish_closing()
        self.assert_ended("draining")


class TcpTests(TimelineTestCase):
    """TCP connections."""

    def setUp(self) -> None:
        self.tcp = self.balancer(mode="tcp")
        self.client = self.tcp.client()
        self.tcp.clock.advance(0.25)
        self.server = self.tcp.accept()
        self.tcp.clock.advance(0.5)

    def test_first_byte(self) -> None:
        """The first byte is the first one of the server."""
        self.client.send(b"ping")
        self.server.send(b"pong")
        self.tcp.clock.advance(0.25)
        self.server.send(b"pong")
        self.assertEqual(self.client.received(), b"pongpong")
        self.client.half_close()
        self.server.half_close()
        self.tcp.finish_closing()
        exchange = self.finished()
        self.assertEqual(
            timeline.phases(exchange),
            {"queue": None, "connect": 0.25, "first_byte": 0.5, "body": 0.25},
        )
        self.assertEqual(timeline.ended(exchange), "complete")
        self.assertEqual(timeline.all_tries(exchange)[0].result, "connected")

    def test_silent_server(self) -> None:
        """A server that sends nothing has no first byte."""
        self.client.half_close()
        self.server.half_close()
        self.tcp.finish_closing()
        self.assertEqual(self.finished().first_byte_at, 0.0)

    def test_reset_by_the_server(self) -> None:
        """A reset by the server cuts the connection."""
        self.server.reset()
        self.tcp.finish_closing()
        self.assert_ended("server")

    def test_reset_by_the_client(self) -> None:
        """A reset by the client."""
        self.client.reset()
        self.tcp.finish_closing()
        self.assert_ended("client")

    def test_idle_timeout(self) -> None:
        """A session without traffic ends with the tunnel timeout."""
        balancer = self.balancer(mode="tcp", timeouts=Timeouts(tunnel=5.0))
        balancer.client()
        balancer.accept()
        balancer.advance(8)
        self.assert_ended("timeout")

    def test_stop(self) -> None:
        """The balancer stops."""
        self.tcp.service.stopService()
        self.tcp.finish_closing()
        self.assert_ended("draining")
