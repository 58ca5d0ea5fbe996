"""Shared HTTP/2 connections to servers: how many, how full, and how they end."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from balancebeam.api import Timeouts
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import OutlierDetectionSettings, RetrySettings, ServerSettings
from balancebeam.upstream.http2_connection import Http2Connection
from tests.helpers.http2_client import Http2Client, request_fields
from tests.helpers.http2_server import Http2Server, Http2ServerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"

LIMIT_2 = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}


def start_clients(balancer: MemoryBalancer, count: int, request: bytes = GET) -> list[Peer]:
    """Connect clients that send one request each."""
    clients = [balancer.client() for _ in range(count)]
    for client in clients:
        client.send(request)
    return clients


class SharingTests(Http2ServerTestCase):
    """Few connections carry many exchanges."""

    def test_one_connection_for_many_exchanges(self) -> None:
        """Exchanges that need a connection at the same time wait for the same one."""
        balancer = self.http2_balancer()
        clients = start_clients(balancer, 10)
        self.assertEqual(len(balancer.connectors), 1)
        server = Http2Server(balancer)
        self.assertEqual(len(server.requests), 10)
        # In another order than that of the requests.
        for stream in reversed(list(server.requests)):
            server.respond(stream, b"%05d" % stream)
        for number, client in enumerate(clients):
            self.assertTrue(client.received().endswith(b"%05d" % (2 * number + 1)))
        start_clients(balancer, 10)
        server.receive()
        self.assertEqual(len(balancer.connectors), 1)
        self.assertEqual(len(server.requests), 20)

    def test_nothing_is_sent_before_the_settings(self) -> None:
        """Requests are sent once the limits of the server are known."""
        balancer = self.http2_balancer()
        start_clients(balancer, 2)
        server = Http2Server(balancer, silent=True)
        self.assertEqual(server.requests, {})
        server.flush()
        self.assertEqual(len(server.requests), 2)

    def test_limit_of_the_server(self) -> None:
        """A full connection gets no exchange; further ones are opened one at a time."""
        balancer = self.http2_balancer()
        clients = start_clients(balancer, 5)
        first = Http2Server(balancer, settings=LIMIT_2)
        self.assertEqual((len(first.requests), len(balancer.connectors)), (2, 2))
        second = Http2Server(balancer, settings=LIMIT_2)
        self.assertEqual((len(second.requests), len(balancer.connectors)), (2, 3))
        # A stream that becomes free serves an exchange that waits for the third connection.
        first.respond(1)
        self.assertEqual(len(first.requests), 3)
        for server in (first, second):
            for stream in list(server.requests)[-2:]:
                server.respond(stream)
        self.assertEqual(sum(b"hello" in client.received() for client in clients), 5)
        third = Http2Server(balancer, settings=LIMIT_2)
        self.assertEqual(third.requests, {})

    def test_changed_limit(self) -> None:
        """A limit that the server raises or lowers later is respected."""
        balancer = self.http2_balancer()
        start_clients(balancer, 1)
        server = Http2Server(balancer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        start_clients(balancer, 1)
        self.assertEqual(len(balancer.connectors), 2)
        server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 3})
        server.flush()
        self.assertEqual(len(server.requests), 2)
        start_clients(balancer, 1)
        server.receive()
        self.assertEqual(len(server.requests), 3)

    def test_server_that_allows_no_stream(self) -> None:
        """A limit of 0 fails the exchanges instead of connecting for ever."""
        balancer = self.http2_balancer()
        clients = start_clients(balancer, 2)
        Http2Server(balancer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 0})
        for client in clients:
            self.assert_error(client.received(), 502)
        self.assertEqual(len(balancer.connectors), 1)

    def test_own_limit(self) -> None:
        """Without a limit of the server, a connection has at most 128 streams."""
        balancer = self.http2_balancer()
        start_clients(balancer, 130)
        server = Http2Server(balancer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 10000})
        self.assertEqual((len(server.requests), len(balancer.connectors)), (128, 2))

    def test_clients_that_leave_while_they_wait(self) -> None:
        """A client that disconnects before the connection leaves nothing behind."""
        balancer = self.http2_balancer()
        clients = start_clients(balancer, 3)
        clients[0].reset()
        clients[1].reset()
        server = Http2Server(balancer)
        self.assertEqual(len(server.requests), 1)
        server.respond(1)
        self.assertIn(b"hello", clients[2].received())

    def test_all_clients_leave_while_they_wait(self) -> None:
        """The connection without any exchange is kept for the next exchange."""
        balancer = self.http2_balancer()
        for client in start_clients(balancer, 2):
            client.reset()
        server = Http2Server(balancer)
        self.assertEqual(server.requests, {})
        [client] = start_clients(balancer, 1)
        server.receive()
        server.respond(1)
        self.assertIn(b"hello", client.received())
        self.assertEqual(len(balancer.connectors), 1)

    def test_failed_attempt_fails_all_that_wait(self) -> None:
        """Each exchange retries on its own: POST too, because nothing was sent."""
        balancer = self.http2_balancer(servers=2)
        clients = [*start_clients(balancer, 2), *start_clients(balancer, 2, POST)]
        # Round robin: two exchanges wait for each server.
        self.assertEqual(len(balancer.connectors), 2)
        balancer.connectors[0].refuse()
        server = Http2Server(balancer, 1)
        self.assertEqual(len(server.requests), 4)
        for stream in server.requests:
            server.respond(stream)
        self.assertTrue(all(b"hello" in client.received() for client in clients))

    def test_mixed_pool(self) -> None:
        """Servers of one pool may have different protocols."""
        plain = ServerSettings(TcpAddress("10.0.0.9", 80))
        balancer = self.http2_balancer(1, (plain,))
        clients = start_clients(balancer, 2)
        http2 = Http2Server(balancer, 0)
        http1 = balancer.accept(1)
        http2.respond(1)
        self.assertTrue(http1.received().startswith(b"GET / HTTP/1.1\r\n"))
        http1.send(OK)
        self.assertTrue(all(b"hello" in client.received() for client in clients))

    def test_proxy_header_begins_a_connection_of_one_client(self) -> None:
        """With the PROXY protocol, each exchange has its own connection."""
        settings = ServerSettings(TcpAddress("10.0.0.1", 80), protocol="h2", proxy_protocol=1)
        balancer = self.http2_balancer(0, (settings,))
        clients = start_clients(balancer, 2)
        self.assertEqual(len(balancer.connectors), 2)
        for number, client in enumerate(clients):
            peer = balancer.accept(number)
            header, _, rest = peer.received().partition(b"\r\n")
            self.assertEqual(header, b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 1100")
            self.assertTrue(rest.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            server = Http2Server.__new__(Http2Server)
            server.start(peer, received=rest)
            server.respond(1)
            self.assertIn(b"hello", client.received())
            self.assertTrue(peer.transport.closing)


class EndTests(Http2ServerTestCase):
    """The end of connections, and of exchanges on them."""

    def start(self, count: int = 1, request: bytes = GET, **settings: Any) -> None:
        """Start a balancer, `count` clients with a request each, and the first connection."""
        settings.setdefault("passive", OutlierDetectionSettings(cooldown=0.0))
        self.bal = self.http2_balancer(**settings)
        self.clients = start_clients(self.bal, count, request)
        self.server = Http2Server(self.bal)

    def test_goaway(self) -> None:
        """After GOAWAY, streams continue, and the next exchange gets another connection."""
        self.start()
        self.server.h2.close_connection(last_stream_id=1)
        # The library would send nothing more.
        self.server.send_raw(self.server.h2.data_to_send())
        [client] = start_clients(self.bal, 1)
        self.assertEqual(len(self.bal.connectors), 2)
        second = Http2Server(self.bal)
        second.respond(1)
        self.assertIn(b"hello", client.received())
        # :status 200 with content-length 0, and END_STREAM.
        self.server.send_raw(b"\0\0\5\1\5\0\0\0\1\x88\x0f\x0d\x010")
        self.assertIn(b"HTTP/1.1 200 OK\r\n", self.clients[0].received())
        self.assertTrue(self.server.peer.transport.closing)

    def test_streams_above_the_last_of_goaway(self) -> None:
        """They are sent again, whatever their method, and at another server if there is one."""
        self.start(3, POST)
        self.server.h2.close_connection(last_stream_id=1)
        self.server.send_raw(self.server.h2.data_to_send())
        self.assertEqual(len(self.bal.connectors), 2)
        second = Http2Server(self.bal)
        self.assertEqual(
            [request.content for request in second.requests.values()], [b"abc", b"abc"]
        )
        self.assertEqual(self.bal.servers[0].failed_requests, 0)

    def test_refused_stream_goes_to_another_server(self) -> None:
        """REFUSED_STREAM is no failure of the server, and costs no retry budget."""
        self.start(1, POST, servers=2, retries=RetrySettings(attempts=1, on=()))
        self.server.reset(1, ErrorCodes.REFUSED_STREAM)
        self.assertEqual(self.bal.connectors[1].address, TcpAddress("10.0.0.2", 80))
        second = Http2Server(self.bal)
        second.respond(1)
        self.assertIn(b"hello", self.clients[0].received())
        self.assertEqual(self.bal.servers[0].failed_requests, 0)

    def test_refused_stream_without_another_server(self) -> None:
        """The same server gets the request once more; a further refusal is a 503."""
        self.start(1, POST)
        self.server.reset(1, ErrorCodes.REFUSED_STREAM)
        self.server.receive()
        self.assertEqual(self.server.requests[3].content, b"abc")
        self.server.reset(3, ErrorCodes.REFUSED_STREAM)
        self.assert_error(self.clients[0].received(), 503)

    def test_refused_stream_with_a_long_body_is_not_repeated(self) -> None:
        """A body that is not buffered any more cannot be sent again."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        server = Http2Server(balancer)
        client.send(b"x" * 100000)
        server.receive()
        server.reset(1, ErrorCodes.REFUSED_STREAM)
        self.assert_error(client.received(), 503)

    def test_reset_fails_one_exchange(self) -> None:
        """RST_STREAM fails its exchange alone, and its request is not repeated if it is a POST."""
        self.start(2, POST)
        self.server.reset(1, ErrorCodes.INTERNAL_ERROR)
        self.server.respond(3)
        self.assert_error(self.clients[0].received(), 502)
        self.assertIn(b"hello", self.clients[1].received())
        self.assertFalse(self.server.peer.transport.closing)

    def test_reset_within_a_response(self) -> None:
        """A response that was cut is not completed for the client."""
        self.start(2)
        self.server.send_headers(1, ("content-length", "10"))
        self.server.send_data(1, b"abc")
        self.server.reset(1, ErrorCodes.CANCEL)
        self.assertTrue(self.clients[0].received().endswith(b"\r\n\r\nabc"))
        self.assertTrue(self.clients[0].transport.closing)
        self.server.respond(3)
        self.assertIn(b"hello", self.clients[1].received())

    def test_client_that_disconnects(self) -> None:
        """The stream of a client that disconnects is cancelled, and no other one."""
        self.start(2)
        self.clients[0].reset()
        self.server.receive()
        self.assertEqual(self.server.requests[1].reset, ErrorCodes.CANCEL)
        self.server.respond(3)
        self.assertIn(b"hello", self.clients[1].received())

    def test_frames_for_a_cancelled_stream(self) -> None:
        """What the server sent before it knew of the reset is ignored, but decoded."""
        self.start(2)
        self.clients[0].reset()
        self.server.h2.send_headers(1, [(":status", "200"), ("x-new", "entry")])
        self.server.h2.send_data(1, b"x" * 100, end_stream=True)
        late = self.server.h2.data_to_send()
        self.server.send_raw(late)
        self.server.respond(3, b"hello", ("x-new", "entry"))
        self.assertIn(b"x-new: entry\r\n", self.clients[1].received())

    def test_idle_connection_that_the_server_closes(self) -> None:
        """It fails nothing, and the next exchange opens another one."""
        for end in (Peer.half_close, Peer.reset):
            self.start()
            self.server.respond(1)
            end(self.server.peer)
            self.assertEqual(self.bal.servers[0].idle_connections, {})
            self.clients[0].send(GET)
            Http2Server(self.bal).respond(1)
            self.assertEqual(self.clients[0].received().count(b"hello"), 2)

    def test_connection_closed_with_requests(self) -> None:
        """Requests on an idle connection that closes just then are repeated, others fail."""
        self.start(1)
        self.server.respond(1)
        idempotent = start_clients(self.bal, 2)
        others = start_clients(self.bal, 1, POST)
        self.server.peer.reset()
        self.assert_error(others[0].received(), 502)
        second = Http2Server(self.bal)
        for stream in list(second.requests):
            second.respond(stream)
        self.assertTrue(all(b"hello" in client.received() for client in idempotent))

    def test_new_connection_closed_with_requests(self) -> None:
        """A connection that has never responded is a failure of the server."""
        self.start(2)
        self.server.peer.reset()
        for client in self.clients:
            self.assert_error(client.received(), 502)
        self.assertEqual(self.bal.servers[0].failed_requests, 2)

    def test_connection_error(self) -> None:
        """Invalid frames close the connection with GOAWAY, and fail all exchanges."""
        invalid = (
            b"\0\0\4\0\0\0\0\0\2abcd",  # DATA on stream 2
            b"\0\0\4\5\4\0\0\0\1\0\0\0\2",  # PUSH_PROMISE
            b"\0\0\1\1\4\0\0\0\1\xff",  # HPACK
            b"\xff\xff\xff\0\0\0\0\0\1",  # too large
            b"\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff",  # window above 2^31-1
            b"\0\0\5\6\0\0\0\0\0hello",  # PING of the wrong size
            b"\0\0\1\1\0\0\0\0\1\x88" + b"\0\0\0\x06\0\0\0\0\1",  # no CONTINUATION
            b"\0\0\1\1\0\0\0\0\1\x88" + b"\0\0\1\x09\0\0\0\0\1\x88" * 9,
        )
        for data in invalid:
            self.start(2, POST)
            self.server.peer.send(data)
            for client in self.clients:
                self.assert_error(client.received(), 502)
            self.assertTrue(self.server.peer.transport.aborted)
            self.assertIn(b"\0\0\0\0\0", self.server.peer.received())

    def test_floods(self) -> None:
        """Frames that carry nothing close the connection before they cost much."""
        floods = (
            b"\0\0\x08\6\0\0\0\0\0\0\0\0\0\0\0\0\0",  # PING
            b"\0\0\0\4\0\0\0\0\0",  # SETTINGS
            b"\0\0\0\0\0\0\0\0\1",  # empty DATA
            b"\0\0\4\x08\0\0\0\0\1\0\0\0\1",  # WINDOW_UPDATE
        )
        for frame in floods:
            self.start()
            self.server.send_headers(1)
            self.server.peer.send(frame * 1000)
            self.assertTrue(self.server.peer.transport.aborted)

    def test_server_without_http2(self) -> None:
        """A server that responds in HTTP/1.1 has not got the request: POST is retried too."""
        balancer = self.http2_balancer(servers=2)
        [client] = start_clients(balancer, 1, POST)
        balancer.accept().send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        Http2Server(balancer).respond(1)
        self.assertIn(b"hello", client.received())

    def test_server_that_closes_before_settings(self) -> None:
        """An attempt fails if the connection is closed before SETTINGS."""
        balancer = self.http2_balancer()
        [client] = start_clients(balancer, 1)
        balancer.accept().half_close()
        self.assert_error(client.received(), 502)

    def test_server_that_sends_no_settings(self) -> None:
        """The connect timeout includes the SETTINGS of the server."""
        balancer = self.http2_balancer(timeouts=Timeouts(connect=2.0))
        [client] = start_clients(balancer, 1)
        server = Http2Server(balancer, silent=True)
        balancer.advance(3.0)
        self.assert_error(client.received(), 504)
        self.assertTrue(server.peer.transport.aborted)

    def test_goaway_with_the_settings(self) -> None:
        """A server that is shutting down gets no exchange."""
        balancer = self.http2_balancer()
        [client] = start_clients(balancer, 1)
        server = Http2Server(balancer, silent=True)
        server.h2.close_connection()
        server.peer.send(server.h2.data_to_send())
        self.assert_error(client.received(), 502)

    def test_stop(self) -> None:
        """A balancer that stops fails its exchanges and closes its connections."""
        self.start(2)
        self.bal.service.stopService()
        self.assertTrue(self.server.peer.transport.closing)

    def test_drain_of_a_server(self) -> None:
        """Exchanges of a server that leaves the rotation finish, and its connection closes."""
        self.start(2)
        self.server.respond(1)
        self.bal.servers[0].close_idle_connections()
        self.assertFalse(self.server.peer.transport.closing)
        self.server.respond(3)
        self.assertTrue(self.server.peer.transport.closing)
        self.assertIn(b"hello", self.clients[1].received())

    def test_drain_of_a_server_with_a_full_connection(self) -> None:
        """A connection that was full when the drain began closes as well."""
        balancer = self.http2_balancer()
        start_clients(balancer, 2)
        server = Http2Server(balancer, settings=LIMIT_2)
        balancer.servers[0].close_idle_connections()
        server.respond(1)
        self.assertFalse(server.peer.transport.closing)
        server.respond(3)
        self.assertTrue(server.peer.transport.closing)

    def test_connection_of_another_protocol_is_retired(self) -> None:
        """After a reload that changes the protocol, new exchanges use the new one."""
        self.start(2)
        self.server.respond(1)
        pool = next(iter(self.bal.service.pools.values()))
        self.bal.servers[0].protocol = None
        pool.connections.set_protocol("http/1.1")
        self.clients[0].received()
        self.clients[0].send(GET)
        http1 = self.bal.accept()
        self.assertTrue(http1.received().startswith(b"GET / HTTP/1.1\r\n"))
        http1.send(OK)
        self.assertIn(b"hello", self.clients[0].received())
        self.server.respond(3)
        self.assertTrue(self.server.peer.transport.closing)
        pool.connections.set_protocol("h2")
        self.assertTrue(http1.transport.closing)


class TimeoutTests(Http2ServerTestCase):
    """Timeouts end streams; connections end only when the server is dead."""

    def start(self, count: int = 1, request: bytes = GET, **settings: Any) -> None:
        """Start with an upstream timeout of 10 s."""
        settings.setdefault("passive", OutlierDetectionSettings(cooldown=0.0))
        self.bal = self.http2_balancer(timeouts=Timeouts(upstream=10.0), **settings)
        self.clients = start_clients(self.bal, count, request)
        self.server = Http2Server(self.bal)

    def test_stream_times_out_alone(self) -> None:
        """A server that responds to PING loses the stream, and keeps the connection."""
        self.start()
        for _ in range(12):
            self.bal.advance(1.0)
            self.server.receive()
        self.assertEqual(self.server.pings, 1)
        self.assert_error(self.clients[0].received(), 504)
        self.assertEqual(self.server.requests[1].reset, ErrorCodes.CANCEL)
        self.assertFalse(self.server.peer.transport.closing)
        [client] = start_clients(self.bal, 1)
        self.server.receive()
        self.server.respond(3)
        self.assertIn(b"hello", client.received())

    def test_dead_server(self) -> None:
        """Without a response to PING the connection closes, and nothing is sent on it before."""
        self.start()
        self.bal.advance(6.0)
        [client] = start_clients(self.bal, 1)
        self.assertEqual(len(self.bal.connectors), 2)
        Http2Server(self.bal).respond(1)
        self.assertIn(b"hello", client.received())
        self.bal.advance(6.0)
        self.assert_error(self.clients[0].received(), 504)
        self.assertTrue(self.server.peer.transport.aborted)

    def test_idle_connection(self) -> None:
        """A connection without streams closes after 60 s, with GOAWAY."""
        self.start()
        self.server.respond(1)
        self.bal.advance(58.0)
        self.assertFalse(self.server.peer.transport.closing)
        self.bal.advance(4.0)
        self.assertTrue(self.server.peer.transport.closing)
        self.server.receive()
        self.assertEqual([goaway.error_code for goaway in self.server.goaways], [0])

    def test_progress_is_no_timeout(self) -> None:
        """A response that trickles does not time out."""
        self.start()
        self.server.send_headers(1)
        for _ in range(4):
            self.bal.advance(8.0)
            self.server.receive()
            self.server.send_data(1, b"x")
        self.server.send_data(1, b"", end=True)
        self.assertTrue(self.clients[0].received().endswith(b"0\r\n\r\n"))


class FlowControlTests(Http2ServerTestCase):
    """Backpressure in both directions, for each stream."""

    def test_upload_within_the_window_of_the_server(self) -> None:
        """A server that does not open the window pauses the client, and no other one."""
        balancer = self.http2_balancer()
        slow = balancer.client()
        slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
        server = Http2Server(balancer, acknowledge=False)
        sent = 0
        while slow.transport.reading and sent < 300000:
            slow.send(b"x" * 10000)
            sent += 10000
        server.receive()
        self.assertEqual(len(server.requests[1].content), 65535)
        self.assertLess(sent, 130000)
        server.h2.increment_flow_control_window(1 << 20)
        server.flush()
        [other] = start_clients(balancer, 1)
        server.receive()
        server.respond(3)
        self.assertIn(b"hello", other.received())
        server.acknowledge = True
        server.h2.increment_flow_control_window(1 << 20, 1)
        server.flush()
        self.assertTrue(slow.transport.reading)
        while sent < 300000:
            slow.send(b"x" * 10000)
            server.receive()
            sent += 10000
        self.assertTrue(server.requests[1].ended)
        self.assertEqual(len(server.requests[1].content), 300000)
        server.respond(1)

    def test_window_that_settings_open(self) -> None:
        """SETTINGS are acknowledged before content is sent within the windows that they open."""
        balancer = self.http2_balancer()
        start_clients(balancer, 1, POST)
        window = {SettingCodes.INITIAL_WINDOW_SIZE: 2}
        server = Http2Server(balancer, settings=window, acknowledge=False)
        self.assertEqual(server.requests[1].content, b"ab")
        server.events.clear()
        server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 3})
        server.flush()
        names = [type(event).__name__ for event in server.events]
        self.assertEqual(names[:2], ["SettingsAcknowledged", "DataReceived"])
        self.assertEqual(server.requests[1].content, b"abc")

    def test_slow_client_stops_no_other_stream(self) -> None:
        """The window of its stream stays closed, that of the connection does not."""
        balancer = self.http2_balancer()
        slow, fast = start_clients(balancer, 2)
        slow.transport.stalled = True
        server = Http2Server(balancer)
        for stream in (1, 3):
            server.send_headers(stream)
        for _ in range(100):
            window = server.h2.local_flow_control_window(1)
            if window == 0:
                break
            server.send_data(1, b"x" * min(window, 16384))
        self.assertEqual(server.h2.local_flow_control_window(1), 0)
        total = 0
        for _ in range(100):
            size = min(server.h2.local_flow_control_window(3), 16384)
            self.assertGreater(size, 0)
            server.send_data(3, b"y" * size)
            total += size
            fast.received()
        self.assertGreater(total, 1 << 20)
        slow.received()
        server.receive()
        self.assertGreater(server.h2.local_flow_control_window(1), 32000)

    def test_window_overrun(self) -> None:
        """DATA beyond the window resets its stream."""
        balancer = self.http2_balancer()
        [client] = start_clients(balancer, 1)
        client.transport.stalled = True
        server = Http2Server(balancer)
        server.send_headers(1)
        frame = b"\0\x40\0\0\0\0\0\0\1" + b"x" * 16384
        server.peer.send(frame * 20)
        server.receive()
        self.assertEqual(server.requests[1].reset, ErrorCodes.FLOW_CONTROL_ERROR)


class TunnelTests(Http2ServerTestCase):
    """WebSockets over HTTP/2 (RFC 8441)."""

    UPGRADE = (
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    def test_tunnel(self) -> None:
        """The upgrade becomes extended CONNECT, and bytes pass in both directions."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(self.UPGRADE)
        server = Http2Server(balancer, settings={SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        fields = dict(server.requests[1].fields)
        self.assertEqual(
            (fields[":method"], fields[":protocol"], fields[":path"], fields[":authority"]),
            ("CONNECT", "websocket", "/chat", "a"),
        )
        self.assertNotIn("sec-websocket-key", fields)
        self.assertEqual(fields["sec-websocket-version"], "13")
        server.send_headers(1)
        received = client.received()
        self.assertTrue(received.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
        self.assertIn(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", received)
        self.assertIn(b"Upgrade: websocket\r\n", received)
        client.send(b"ping")
        server.receive()
        self.assertEqual(server.requests[1].content, b"ping")
        server.send_data(1, b"pong")
        self.assertEqual(client.received(), b"pong")
        client.half_close()
        server.receive()
        self.assertTrue(server.requests[1].ended)
        server.send_data(1, b"", end=True)
        self.assertTrue(client.transport.write_closed or client.transport.closing)

    def test_rejected_tunnel(self) -> None:
        """Another status is an ordinary response."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(self.UPGRADE)
        server = Http2Server(balancer, settings={SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        server.respond(1, status="403")
        self.assertIn(b"HTTP/1.1 403 Forbidden\r\n", client.received())

    def test_server_without_extended_connect(self) -> None:
        """It gets no WebSocket: 501."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(self.UPGRADE)
        server = Http2Server(balancer)
        self.assert_error(client.received(), 501)
        self.assertEqual(server.requests, {})
        [other] = start_clients(balancer, 1)
        server.receive()
        server.respond(1)
        self.assertIn(b"hello", other.received())

    def test_tunnel_that_is_reset(self) -> None:
        """A reset of the stream resets the client's connection."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(self.UPGRADE)
        server = Http2Server(balancer, settings={SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        server.send_headers(1)
        server.reset(1, ErrorCodes.CONNECT_ERROR)
        self.assertTrue(client.transport.aborted)


class ReprTests(Http2ServerTestCase):
    """The representation of a connection is readable."""

    def test_repr(self) -> None:
        """It names the server and the number of streams."""
        balancer = self.http2_balancer()
        client = Http2Client(balancer)
        client.request(request_fields())
        Http2Server(balancer)
        [connection] = balancer.servers[0].idle_connections
        assert isinstance(connection, Http2Connection)
        self.assertEqual(repr(connection), "<Http2Connection to 10.0.0.1:80 with 1 streams>")
