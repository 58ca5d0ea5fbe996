"""Faults that a hostile review found in the doors, kept so that they stay away."""

from __future__ import annotations

from collections.abc import Callable

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK, Peer, head_and_body
from tests.helpers.upgrade import UPGRADE_REQUEST, UPGRADE_RESPONSE


class RegressionTests(BalancerTestCase):
    """Each test says what went wrong."""

    def test_client_that_ended_before_its_tunnel_began(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        client.half_close()
        server.send(UPGRADE_RESPONSE)
        self.assertTrue(server.transport.write_closed)
        server.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)

    def test_tunnel_of_which_half_is_left_does_not_last_for_ever(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(idle=5, upstream=5))
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        server.send(UPGRADE_RESPONSE)
        client.half_close()
        for _ in range(4):
            balancer.advance(3)
            server.send(b"x")
        self.assertFalse(client.transport.closing)
        balancer.advance(8)
        self.assertTrue(client.transport.aborted)

    def test_lingering_begins_when_the_answer_is_out(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50000)
        self.assertTrue(client.transport.write_closed)
        balancer.advance(20)
        self.assertFalse(client.transport.closing)
        self.assertEqual(len(head_and_body(client.received())[1]), 50000)
        client.protocol.writeConnectionLost()
        balancer.advance(5)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_idle_time_begins_with_the_end_of_the_response(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(idle=10, upstream=60, header=10))
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        balancer.advance(30)
        server.send(OK)
        balancer.advance(8)
        self.assertFalse(client.transport.closing)
        balancer.advance(4)
        self.assertTrue(client.transport.closing)

    def test_stall_begins_with_the_stall(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(idle=10, upstream=60, header=10))
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
        balancer.advance(30)
        client.transport.stalled = True
        server.send(b"x" * 2 * BUFFER_SIZE)
        balancer.advance(8)
        self.assertFalse(client.transport.aborted)
        client.received()
        client.transport.stalled = False
        server.send(b"x" * (999999 - 2 * BUFFER_SIZE))

    def test_half_closed_client_has_a_second_at_least(self) -> None:
        balancer = self.balancer()
        balancer.advance(0.9)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.half_close()
        balancer.advance(1.0)
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_idle_connection_that_has_ended_is_not_taken_before_it_is_gone(self) -> None:
        ends: tuple[Callable[[Peer], None], ...] = (
            Peer.half_close,
            lambda server: server.send(b"x"),
        )
        for end in ends:
            balancer = self.balancer()
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(OK)
            end(server)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual(len(balancer.connectors), 2)
            balancer.accept().send(OK)
            self.assertEqual(client.received().count(b"hello"), 2)

    def test_connection_that_was_kept_before_its_first_use_may_be_stale(self) -> None:
        balancer = self.balancer()
        leaver = balancer.client()
        leaver.send(GET)
        leaver.reset()
        server = balancer.accept()
        client = balancer.client()
        client.send(GET)
        server.half_close()
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_turns_go_round_when_all_are_out(self) -> None:
        balancer = self.balancer(servers=3)
        client = balancer.client()
        seen = set()
        client.send(GET)
        while balancer.connectors[-1].state == "connecting":
            balancer.connectors[-1].refuse()
        for _ in range(3):
            count = len(balancer.connectors)
            client.send(GET)
            seen.add(str(balancer.connectors[count].address))
            while balancer.connectors[-1].state == "connecting":
                balancer.connectors[-1].refuse()
        self.assertEqual(len(seen), 3)

    def test_stray_line_end_earns_no_answer(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        client.send(b"\r\n")
        balancer.advance(30)
        self.assertFalse(client.transport.closing)
        balancer.advance(40)
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_connection_with_a_request_still_in_it_is_not_kept(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        client.send(b"x" * 1000)
        server.send(OK)
        self.assertTrue(server.transport.aborted)
        client.send(GET)
        balancer.accept().send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)

    def test_head_that_is_refused_gets_no_body(self) -> None:
        long = b"x" * 40000
        for request in (
            b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HEAD /" + long,
            b"\r\nHEAD / HTTP/1.1\r\nHost: a\r\nX: " + long,
            b"HEAD / HTTP/1.1\nHost: a\n\n",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n",
            b"HEAD / HT",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        ):
            balancer = self.balancer(max_body=10)
            client = balancer.client()
            client.send(request)
            if balancer.connectors:
                balancer.accept()
            balancer.advance(62)
            lines, body = head_and_body(client.received())
            self.assertEqual(lines[0][9:10], b"4", request)
            self.assertEqual(body, b"", request)

    def test_via_names_the_version_of_the_server(self) -> None:
        for version, via in ((b"1.0", b"1.0"), (b"1.1", b"1.1")):
            _, answered = self.exchange(
                GET, b"HTTP/" + version + b" 200 OK\r\nContent-Length: 0\r\n\r\n"
            )
            self.assertIn(b"\r\nVia: " + via + b" balancebeam\r\n", answered)

    def test_head_in_many_pieces_is_not_checked_from_the_start_each_time(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        for number in range(100):
            client.send(b"X-%d: 1" % number, b"\r", b"\n")
            self.assertGreater(client.protocol._reader._scan_offset, 20 + 7 * number)
        client.send(b"\r\n", GET)
        balancer.accept().send(OK)
        balancer.peers[-1].send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)

    def test_silence_instead_of_continue_is_the_servers(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=5, header=5))
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept()
        balancer.advance(7)
        self.assert_error(client.received(), 504)

    def test_tunnel_that_both_sides_have_stopped_reading(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=5, header=5))
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        server.send(UPGRADE_RESPONSE)
        client.received()
        client.transport.stalled = server.transport.stalled = True
        server.send(b"x" * 2 * BUFFER_SIZE)
        client.send(b"last words")
        client.half_close()
        balancer.advance(8)
        client.finish_closing()
        self.assertTrue(client.transport.closed)
        balancer.advance(8)
        self.assertTrue(server.transport.aborted)

    def test_server_that_takes_an_upload_slowly(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=60))
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        client.send(b"x" * 2 * BUFFER_SIZE)
        for _ in range(5):
            balancer.advance(4)
            server.transport.read_some(1000)
        self.assertEqual(client.received(), b"")
        balancer.advance(12)
        self.assert_error(client.received(), 504)

    def test_lingering_after_a_backlog(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        server.send(b"x" * 100000)
        client.received()
        server.send(b"x" * 100000)
        client.transport.read_some(200000)
        client.protocol.writeConnectionLost()
        balancer.advance(5)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_only_100_is_the_word_to_continue(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=8, idle=5, header=5))
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept().send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        client.received()
        balancer.advance(11)
        self.assert_error(client.received(), 504)

    def test_http_1_0_does_not_wait_for_a_word(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=10, header=10))
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept()
        balancer.advance(13)
        self.assert_error(client.received(), 408)
