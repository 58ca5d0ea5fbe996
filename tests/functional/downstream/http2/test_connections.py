"""HTTP/2 connections: errors, drain, timeouts, floods and prior knowledge."""

from __future__ import annotations

from balancebeam.api import Timeouts
from balancebeam.downstream.http1.factory import Http1Factory
from balancebeam.protocols.http2 import frames as f
from balancebeam.protocols.http2.abuse import GLITCH_BURST, RESET_BURST
from balancebeam.protocols.http2.settings import encode_settings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.http2_client import Http2Client, request_fields
from tests.helpers.memory import GET, OK, MemoryBalancer


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return f.encode_frame(kind, flags, stream, payload)


GET_BLOCK = b"\x82\x86\x84\x41\x0bexample.org"
OPEN = frame(f.HEADERS, 4, 1, GET_BLOCK)
REQUEST = frame(f.HEADERS, 5, 1, GET_BLOCK)


def goaway_codes(data: bytes) -> list[int]:
    """Return the error codes of the GOAWAY frames in `data`."""
    return [code for kind, _, payload in split(data) for code in codes(kind, payload, f.GOAWAY)]


def codes(kind: int, payload: bytes, expected: int) -> list[int]:
    """Return the error code of a GOAWAY or RST_STREAM frame, if it is the `expected` one."""
    offset = 4 if kind == f.GOAWAY else 0
    return [int.from_bytes(payload[offset : offset + 4], "big")] if kind == expected else []


def split(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return type, stream and payload of each frame in `data`."""
    result = []
    while data:
        word, _, stream = f.FRAME_HEADER.unpack_from(data)
        result.append((word & 255, stream, data[9 : 9 + (word >> 8)]))
        data = data[9 + (word >> 8) :]
    return result


class ErrorTests(BalancerTestCase):
    """Errors end the connection or the stream with the code of RFC 9113."""

    CONNECTION_ERRORS = (
        ("DATA on stream 0", frame(f.DATA, 0, 0, b"x"), 1),
        ("DATA on an idle stream", frame(f.DATA, 0, 1, b"x"), 1),
        ("HEADERS on stream 0", frame(f.HEADERS, 5, 0, GET_BLOCK), 1),
        ("HEADERS on an even stream", frame(f.HEADERS, 5, 2, GET_BLOCK), 1),
        ("HEADERS after END_STREAM of both", REQUEST, 5),
        ("invalid header block", frame(f.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"), 9),
        ("PRIORITY on stream 0", frame(f.PRIORITY, 0, 0, b"\0\0\0\0\1"), 1),
        ("PRIORITY of a wrong size", frame(f.PRIORITY, 0, 1, b"\0\0\0\0"), 6),
        ("PRIORITY on itself", frame(f.PRIORITY, 0, 1, b"\0\0\0\1\1"), 1),
        ("RST_STREAM on stream 0", frame(f.RST_STREAM, 0, 0, b"\0\0\0\0"), 1),
        ("RST_STREAM on an idle stream", frame(f.RST_STREAM, 0, 1, b"\0\0\0\0"), 1),
        ("RST_STREAM of a wrong size", OPEN + frame(f.RST_STREAM, 0, 1, b"\0\0\0"), 6),
        ("SETTINGS on a stream", frame(f.SETTINGS, 0, 1), 1),
        ("SETTINGS ACK with a payload", frame(f.SETTINGS, 1, 0, b"\0" * 6), 6),
        ("SETTINGS of a wrong size", frame(f.SETTINGS, 0, 0, b"\0" * 5), 6),
        ("ENABLE_PUSH of 2", encode_settings([(2, 2)]), 1),
        ("INITIAL_WINDOW_SIZE above the limit", encode_settings([(4, 2**31)]), 3),
        ("MAX_FRAME_SIZE below the limit", encode_settings([(5, 2**14 - 1)]), 1),
        ("MAX_FRAME_SIZE above the limit", encode_settings([(5, 2**24)]), 1),
        ("PUSH_PROMISE", frame(f.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), 1),
        ("PING on a stream", frame(f.PING, 0, 1, b"\0" * 8), 1),
        ("PING of a wrong size", frame(f.PING, 0, 0, b"\0" * 7), 6),
        ("GOAWAY on a stream", frame(f.GOAWAY, 0, 1, b"\0" * 8), 1),
        ("GOAWAY of a wrong size", frame(f.GOAWAY, 0, 0, b"\0" * 7), 6),
        ("WINDOW_UPDATE of 0", frame(f.WINDOW_UPDATE, 0, 0, b"\0" * 4), 1),
        ("WINDOW_UPDATE of a wrong size", frame(f.WINDOW_UPDATE, 0, 0, b"\0" * 3), 6),
        ("WINDOW_UPDATE on an idle stream", frame(f.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), 1),
        ("window above the limit", frame(f.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), 3),
        ("CONTINUATION without HEADERS", frame(f.CONTINUATION, 4, 1, GET_BLOCK), 1),
        ("DATA within a header block", frame(f.HEADERS, 0, 1, b"\x82") + frame(0, 0, 1), 1),
        ("PING within a header block", frame(f.HEADERS, 0, 1) + frame(6, 0, 0, b"\0" * 8), 1),
        (
            "CONTINUATION of another stream",
            frame(f.HEADERS, 0, 1, b"\x82") + frame(f.CONTINUATION, 4, 3, GET_BLOCK),
            1,
        ),
        ("frame that is too large", frame(f.DATA, 0, 1, b"x" * 16385), 6),
        ("padding longer than the payload", frame(f.HEADERS, 0xD, 1, b"\x20" + GET_BLOCK), 1),
        ("padded frame without pad length", frame(f.HEADERS, 0xD, 1), 6),
        ("HEADERS too short for its priority", frame(f.HEADERS, 0x25, 1, b"\0"), 6),
    )

    STREAM_ERRORS = (
        ("stream that depends on itself", frame(f.HEADERS, 0x25, 1, b"\0\0\0\1\1" + GET_BLOCK), 1),
        ("window above the limit", frame(f.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), 3),
        ("WINDOW_UPDATE of 0", frame(f.WINDOW_UPDATE, 0, 1, b"\0" * 4), 1),
        ("HEADERS that are no trailers", frame(f.HEADERS, 5, 1, GET_BLOCK), 1),
        ("trailers without END_STREAM", frame(f.HEADERS, 4, 1, b"\x00\x01a\x01b"), 1),
        ("PRIORITY of a wrong size", frame(f.PRIORITY, 0, 1, b"\0\0\0\0"), 6),
        ("DATA after END_STREAM", frame(f.DATA, 1, 1) + frame(f.DATA, 0, 1, b"x"), 5),
        ("trailers with an upper-case name", frame(f.HEADERS, 5, 1, b"\x00\x01A\x01b"), 1),
    )

    def _client(self) -> Http2Client:
        return Http2Client(self.balancer())

    def test_connection_errors(self) -> None:
        """An error of the connection is a GOAWAY with its code, and then EOF."""
        for name, data, code in self.CONNECTION_ERRORS:
            with self.subTest(name):
                client = self._client()
                if "both" in name:
                    client.peer.send(REQUEST)
                    client.peer.protocol.streams[1].local_reply(503, "x")
                client.peer.send(data)
                self.assertEqual(goaway_codes(client.peer.received()), [code], name)
                self.assertTrue(client.peer.transport.write_closed)

    def test_stream_errors(self) -> None:
        """An error of a stream is a RST_STREAM with its code, and the connection continues."""
        for name, data, code in self.STREAM_ERRORS:
            with self.subTest(name):
                balancer = self.balancer()
                client = Http2Client(balancer)
                if "itself" not in name:
                    client.peer.send(OPEN)
                client.peer.send(data)
                received = split(client.peer.received())
                resets = [c for kind, _, p in received for c in codes(kind, p, f.RST_STREAM)]
                self.assertEqual(resets, [code], name)
                self.assertEqual(balancer.servers[0].in_flight, 0)
                client.peer.send(frame(f.PING, 0, 0, b"12345678"))
                self.assertEqual(client.peer.received()[9:], b"12345678")

    def test_invalid_preface(self) -> None:
        """A connection that does not begin with the preface and SETTINGS is closed."""
        for data in (b"GET / HTTP/1.1\r\n\r\n", f.PREFACE + frame(f.PING, 0, 0, b"\0" * 8)):
            balancer = self.balancer()
            client = Http2Client(balancer)
            peer = balancer.client(tls=client.peer.protocol.tls)
            peer.send(data)
            self.assertEqual(goaway_codes(peer.received()), [1])

    def test_unknown_frames_are_ignored(self) -> None:
        """A frame of an unknown type changes nothing."""
        client = self._client()
        client.peer.send(frame(0xBB, 0xFF, 1, b"x") + frame(f.PING, 0, 0, b"12345678"))
        self.assertEqual(client.peer.received()[9:], b"12345678")

    def test_bytes_one_at_a_time(self) -> None:
        """Frames may arrive in any pieces."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        for byte in REQUEST:
            client.peer.send(bytes((byte,)))
        self.assertIn(b"GET / HTTP/1.1\r\nHost: example.org\r\n", balancer.accept().received())

    def test_continuation(self) -> None:
        """A header block may have several frames."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        parts = frame(f.HEADERS, 1, 1, b"\x82\x86") + frame(f.CONTINUATION, 0, 1)
        client.peer.send(parts + frame(f.CONTINUATION, 4, 1, GET_BLOCK[2:]))
        self.assertIn(b"GET / HTTP/1.1\r\n", balancer.accept().received())

    def test_malformed_requests_reach_no_server(self) -> None:
        """A request that RFC 9113 calls malformed is RST_STREAM(PROTOCOL_ERROR)."""
        base = request_fields()
        malformed = (
            [*base, ("Upper", "x")],
            [*base, ("connection", "close")],
            [*base, ("transfer-encoding", "chunked")],
            [*base, ("te", "gzip")],
            [*base, ("host", "other.org")],
            [*base, ("content-length", "3")],
            [*base, ("x", "a\r\nb")],
            [*base, ("x", "a\0b")],
            [*base, (":path", "/")],
            [*base, (":status", "200")],
            [*base[:3], ("x", "y"), base[3]],
            base[1:],
            base[:3],
            [*base[:3], (":path", "")],
            [*base[:3], (":path", "/ HTTP/1.1\r\nX: y")],
            [("x", "y")],
        )
        for fields in malformed:
            balancer = self.balancer()
            client = Http2Client(balancer, strict=False)
            stream = client.request(fields)
            self.assertEqual(client.responses[stream].reset, 1, fields)
            self.assertEqual(balancer.connectors, [], fields)

    def test_unsupported_requests_get_a_response(self) -> None:
        """What HTTP/1.1 answers with an error gets the same response."""
        base = request_fields()
        requests = (
            ([*base, ("expect", "x")], "417"),
            ([(":method", "CONNECT"), (":authority", "a:1")], "501"),
            ([*base[:3], (":path", "/" + "a" * 9000)], "414"),
            ([*base, *[(f"x{number}", "y") for number in range(130)]], "431"),
            ([*base, ("x", "y" * 70000)], "431"),
            ([*base[:2], (":authority", "a b".replace(" ", "|")), base[3]], "400"),
        )
        for fields, status in requests:
            balancer = self.balancer()
            client = Http2Client(balancer, strict=False)
            stream = client.request(fields)
            self.assertEqual(client.responses[stream].status, status)
            self.assertEqual(balancer.connectors, [])
            counts = balancer.service.default_frontend.factory.rejected_requests
            self.assertEqual(dict(counts), {int(status): 1})

    def test_too_many_streams(self) -> None:
        """A stream above the limit is REFUSED_STREAM."""
        client = Http2Client(self.balancer())
        for number in range(129):
            client.peer.send(frame(f.HEADERS, 5, 2 * number + 1, GET_BLOCK))
        received = split(client.peer.received())
        resets = [(s, c) for k, s, p in received for c in codes(k, p, f.RST_STREAM)]
        self.assertEqual(resets, [(257, 7)])


class FloodTests(BalancerTestCase):
    """Floods end the connection with ENHANCE_YOUR_CALM."""

    def _assert_closed(self, balancer: MemoryBalancer, data: list[bytes]) -> None:
        client = Http2Client(balancer)
        client.peer.received()
        other = Http2Client(balancer)
        for piece in data:
            client.peer.send(piece)
            if client.peer.transport.write_closed:
                break
        self.assertEqual(goaway_codes(client.peer.received()), [0xB])
        stream = other.request()
        balancer.accept().send(OK)
        other.receive()
        self.assertEqual(other.responses[stream].content, b"hello")

    def test_rapid_reset(self) -> None:
        """Streams that are opened and reset at once cost a bounded number of connections."""
        balancer = self.balancer()
        pairs = [
            frame(f.HEADERS, 5, number, GET_BLOCK) + frame(f.RST_STREAM, 0, number, b"\0\0\0\x08")
            for number in range(1, 10001, 2)
        ]
        self._assert_closed(balancer, pairs)
        self.assertLess(len(balancer.connectors), RESET_BURST + 10)

    def test_control_frames(self) -> None:
        """SETTINGS, PING, empty DATA, PRIORITY and tiny WINDOW_UPDATE frames are bounded."""
        flood = 2 * GLITCH_BURST
        for piece in (
            frame(f.SETTINGS, 0, 0),
            frame(f.PING, 0, 0, b"\0" * 8),
            frame(f.DATA, 0, 1),
            frame(f.PRIORITY, 0, 5, b"\0\0\0\0\1"),
            frame(f.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
            frame(0xBB, 0, 0),
        ):
            self._assert_closed(self.balancer(), [OPEN] + [piece] * flood)

    def test_continuation_flood(self) -> None:
        """A header block with too many frames, or too many bytes, ends the connection."""
        start = frame(f.HEADERS, 1, 1, b"\x82")
        self._assert_closed(self.balancer(), [start, *[frame(f.CONTINUATION, 0, 1)] * 10])
        full = frame(f.CONTINUATION, 0, 1, b"\x82" * 16384)
        self._assert_closed(self.balancer(), [start, *[full] * 5])

    def test_provoked_resets(self) -> None:
        """Resets that the client provokes are counted too (CVE-2025-8671)."""
        pieces = [
            frame(f.HEADERS, 4, number, GET_BLOCK) + frame(f.WINDOW_UPDATE, 0, number, b"\0" * 4)
            for number in range(1, 10001, 2)
        ]
        self._assert_closed(self.balancer(), pieces)

    def test_acknowledgements_of_a_client_that_does_not_read(self) -> None:
        """Reading is paused before the queued acknowledgements fill the memory."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.peer.transport.stalled = True
        client.peer.protocol.pauseProducing()
        client.peer.transport._producer_paused = True
        for _ in range(20):
            balancer.advance(10)
            for _ in range(GLITCH_BURST - 10):
                if client.peer.transport.reading:
                    client.peer.send(frame(f.PING, 0, 0, b"\0" * 8))
            if not client.peer.transport.reading:
                break
        self.assertFalse(client.peer.transport.reading)
        client.peer.transport.stalled = False
        client.peer.received()
        self.assertTrue(client.peer.transport.reading)


class EndTests(BalancerTestCase):
    """Drain, timeouts and the end of connections."""

    def test_drain(self) -> None:
        """A drain announces GOAWAY, accepts late requests for a second, and then closes."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        first = client.request()
        server = balancer.accept()
        balancer.service.default_frontend.drain()
        data = client.peer.received()
        self.assertEqual(split(data), [(f.GOAWAY, 0, b"\x7f\xff\xff\xff" + b"\0" * 4)])
        client.peer.send(frame(f.HEADERS, 5, 3, GET_BLOCK))
        balancer.accept().send(OK)
        self.assertIn(b"hello", client.peer.received())
        balancer.advance(3)
        self.assertEqual(split(client.peer.received()), [(f.GOAWAY, 0, b"\0\0\0\3" + b"\0" * 4)])
        client.peer.send(frame(f.HEADERS, 5, 5, GET_BLOCK))
        self.assertEqual(split(client.peer.received()), [(f.RST_STREAM, 5, b"\0\0\0\x07")])
        self.assertFalse(client.peer.transport.write_closed)
        server.send(OK)
        self.assertIn(b"hello", client.peer.received())
        self.assertTrue(client.peer.transport.write_closed)
        self.assertEqual(first, 1)

    def test_drain_of_an_idle_connection(self) -> None:
        """An idle connection is closed after the second GOAWAY."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        balancer.service.default_frontend.drain()
        balancer.advance(3)
        self.assertEqual(goaway_codes(client.peer.received()), [0, 0])
        self.assertTrue(client.peer.transport.write_closed)

    def test_idle_timeout(self) -> None:
        """An idle connection gets a GOAWAY and is closed."""
        balancer = self.balancer(timeouts=Timeouts(idle=5))
        client = Http2Client(balancer)
        balancer.advance(4)
        self.assertFalse(client.peer.transport.write_closed)
        balancer.advance(4)
        self.assertEqual(goaway_codes(client.peer.received()), [0])
        self.assertTrue(client.peer.transport.write_closed)
        balancer.advance(5)
        self.assertTrue(client.peer.transport.closing)

    def test_header_timeout(self) -> None:
        """A preface or a header block that does not end is limited by the header timeout."""
        for data in (f.PREFACE[:10], f.PREFACE + encode_settings([]) + frame(f.HEADERS, 1, 1)):
            balancer = self.balancer(timeouts=Timeouts(header=5))
            tls = Http2Client(balancer).peer.protocol.tls
            peer = balancer.client(tls=tls)
            peer.send(data)
            balancer.advance(8)
            self.assertTrue(peer.transport.write_closed)

    def test_body_timeout(self) -> None:
        """A request body that stops gets 408, and the connection continues."""
        balancer = self.balancer(timeouts=Timeouts(idle=5))
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        balancer.advance(3)
        client.send_raw(frame(f.PING, 0, 0, b"\0" * 8))
        balancer.advance(4)
        client.receive()
        self.assertEqual(client.responses[stream].status, "408")
        self.assertTrue(server.transport.closing)

    def test_client_gives_no_window(self) -> None:
        """A stream that makes no progress for the idle timeout is reset."""
        balancer = self.balancer(timeouts=Timeouts(idle=5))
        client = Http2Client(balancer)
        stream = client.request()
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 99999)
        client.receive(acknowledge=False)
        for _ in range(4):
            balancer.advance(2)
            client.send_raw(frame(f.PING, 0, 0, b"\0" * 8))
        client.receive(acknowledge=False)
        self.assertEqual(client.responses[stream].reset, 8)
        self.assertTrue(server.transport.closing)

    def test_client_disconnects(self) -> None:
        """EOF or a reset of the client abandons all its requests."""
        for method in ("half_close", "reset"):
            balancer = self.balancer()
            client = Http2Client(balancer)
            client.request()
            client.request()
            servers = [balancer.accept(0), balancer.accept(1)]
            getattr(client.peer, method)()
            self.assertTrue(all(server.transport.closing for server in servers))
            self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_stop_with_streams(self) -> None:
        """Stopping the balancer aborts streams that are in progress."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.request()
        client.start(request_fields("POST"))


class PriorKnowledgeTests(BalancerTestCase):
    """`h2c = true`: HTTP/2 beside HTTP/1.1 without TLS."""

    def _balancer(self) -> MemoryBalancer:
        balancer = self.balancer()
        factory = balancer.service.default_frontend.factory
        assert isinstance(factory, Http1Factory)
        factory.context.h2c = True
        return balancer

    def test_both_versions(self) -> None:
        """The preface selects HTTP/2, anything else is HTTP/1.1."""
        balancer = self._balancer()
        client = Http2Client(balancer, tls=None)
        fields = [(n, "http" if n == ":scheme" else v) for n, v in request_fields()]
        stream = client.request(fields)
        server = balancer.accept()
        self.assertIn(b"X-Forwarded-Proto: http\r\n", server.received())
        server.send(OK)
        client.receive()
        self.assertEqual(client.responses[stream].content, b"hello")
        old = balancer.client()
        old.send(GET)
        server.send(OK)
        self.assertTrue(old.received().endswith(b"hello"))

    def test_preface_in_pieces(self) -> None:
        """The first bytes may arrive one by one."""
        balancer = self._balancer()
        for data in (f.PREFACE + encode_settings([]) + REQUEST, b"POST" + GET[3:]):
            peer = balancer.client()
            for byte in data:
                peer.send(bytes((byte,)))
        balancer.accept(0)
        balancer.accept(1)

    def test_https_is_rejected(self) -> None:
        """A request for an https resource without TLS gets 400."""
        balancer = self._balancer()
        client = Http2Client(balancer, tls=None)
        stream = client.request()
        self.assertEqual(client.responses[stream].status, "400")

    def test_late_preface(self) -> None:
        """A client that sends nothing is closed by the header timeout."""
        balancer = self._balancer()
        peer = balancer.client()
        balancer.advance(40)
        self.assertTrue(peer.transport.closing)

    def test_not_without_the_setting(self) -> None:
        """Without `h2c`, the preface is an unsupported version."""
        balancer = self.balancer()
        peer = balancer.client()
        peer.send(f.PREFACE)
        self.assertTrue(peer.received().startswith(b"HTTP/1.1 505 "))
