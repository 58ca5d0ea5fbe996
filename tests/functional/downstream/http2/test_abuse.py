"""
Attacks over HTTP/2 cost bounded work and memory, and other clients do not notice them.

Work is counted (interpreted header blocks, connections to servers, queued bytes), never timed.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

from balancebeam.api import Timeouts
from balancebeam.protocols.http2 import frames as f
from balancebeam.protocols.http2.abuse import GLITCH_BURST, RESET_BURST
from balancebeam.protocols.http2.hpack_encoder import encode_fields, encode_integer
from balancebeam.protocols.http2.settings import SETTINGS_ACK, encode_settings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.http2_client import H2_TLS, Http2Client, request_fields
from tests.helpers.memory import OK, MemoryBalancer, Peer

ENHANCE_YOUR_CALM = 0xB
GET = encode_fields([(n.encode(), v.encode()) for n, v in request_fields()])
POST = encode_fields([(n.encode(), v.encode()) for n, v in request_fields("POST")])
LENGTH_3 = POST + encode_fields([(b"content-length", b"3")])
STREAMS = range(1, 20001, 2)
HEAD_OF_LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def goaway_code(data: bytes) -> int | None:
    """Return the error code of the last GOAWAY in `data`, if there is one."""
    code = None
    while data:
        word, _, _ = f.FRAME_HEADER.unpack_from(data)
        if word & 0xFF == f.GOAWAY:
            code = int.from_bytes(data[13:17], "big")
        data = data[9 + (word >> 8) :]
    return code


def reset(stream: int) -> bytes:
    """Return RST_STREAM(CANCEL)."""
    return f.encode_rst_stream(stream, 8)


class AttackTestCase(BalancerTestCase):
    """Base class: an attacker, and a witness on another connection."""

    def attack(self, balancer: MemoryBalancer, pieces: Iterable[bytes]) -> tuple[Peer, int]:
        """Send `pieces` until the connection is closed; return the attacker and their number."""
        witness = Http2Client(balancer, "192.0.2.2")
        pending = witness.request()
        server = balancer.accept()
        attacker = balancer.client(tls=H2_TLS)
        attacker.send(f.PREFACE + encode_settings(()) + SETTINGS_ACK)
        sent = 0
        for piece in pieces:
            if attacker.transport.closing or attacker.transport.write_closed:
                break
            if not attacker.transport.reading:
                break
            attacker.send(piece)
            sent += 1
        server.send(OK)
        witness.receive()
        self.assertEqual(witness.responses[pending].content, b"hello")
        stream = witness.request()
        server.send(OK)
        witness.receive()
        self.assertEqual(witness.responses[stream].content, b"hello")
        return attacker, sent

    def assert_calm(self, attacker: Peer) -> None:
        """Assert that the connection was closed with ENHANCE_YOUR_CALM, and holds nothing."""
        self.assertEqual(goaway_code(attacker.received()), ENHANCE_YOUR_CALM)
        self.assertTrue(attacker.transport.write_closed)
        self.assertEqual(len(attacker.protocol.streams), 0)


class ResetTests(AttackTestCase):
    """Rapid reset (CVE-2023-44487) and resets that are provoked (CVE-2025-8671)."""

    def test_resets_in_the_same_batch_reach_no_server(self) -> None:
        """Pairs of a request and its reset cost one connection to a server, however many."""
        for size in (1, 10, 1000):
            balancer = self.balancer()
            pairs = [f.encode_headers(n, GET, True) + reset(n) for n in STREAMS]
            batches = [b"".join(pairs[i : i + size]) for i in range(0, len(pairs), size)]
            attacker, _ = self.attack(balancer, batches)
            self.assert_calm(attacker)
            # The request of the witness, and the first of the attacker.
            self.assertLessEqual(len(balancer.connectors), 2)
            self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_resets_that_arrive_later_are_bounded(self) -> None:
        """Requests whose resets arrive apart end after the burst."""
        balancer = self.balancer()
        pieces = [p for n in STREAMS for p in (f.encode_headers(n, GET, True), reset(n))]
        attacker, sent = self.attack(balancer, pieces)
        self.assert_calm(attacker)
        self.assertLessEqual(sent, 2 * (RESET_BURST + 1))
        self.assertLessEqual(len(balancer.connectors), RESET_BURST + 2)

    def test_leaving_a_page(self) -> None:
        """A browser that cancels all its streams at once may go on."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        for _ in range(3):
            streams = [client.request() for _ in range(100)]
            for stream in streams:
                client.reset(stream)
            self.assertEqual(balancer.servers[0].in_flight, 0)
            balancer.advance(3)
        stream = client.request()
        balancer.accept().send(OK)
        client.receive()
        self.assertEqual(client.responses[stream].content, b"hello")

    def test_provoked_resets(self) -> None:
        """Every error of a stream for which the proxy resets it is counted."""
        window = (0).to_bytes(4, "big")
        overflow = (2**31 - 1).to_bytes(4, "big")
        errors = {
            "WINDOW_UPDATE of 0": (POST, 4, lambda n: f.encode_frame(8, 0, n, window)),
            "window overflow": (POST, 4, lambda n: f.encode_frame(8, 0, n, overflow)),
            "PRIORITY on itself": (
                *(POST, 4),
                lambda n: f.encode_frame(2, 0, n, n.to_bytes(4, "big") + b"\0"),
            ),
            "PRIORITY size": (POST, 4, lambda n: f.encode_frame(2, 0, n, b"\0")),
            "DATA after END_STREAM": (GET, 5, lambda n: f.encode_data(n, b"x")),
            "HEADERS after END_STREAM": (GET, 5, lambda n: f.encode_headers(n, b"", True)),
            "length exceeded": (LENGTH_3, 4, lambda n: f.encode_data(n, b"abcd")),
            "length not reached": (LENGTH_3, 4, lambda n: f.encode_data(n, b"a", True)),
            "trailers with pseudo-field": (POST, 4, lambda n: f.encode_headers(n, GET, True)),
            "trailers without END_STREAM": (POST, 4, lambda n: f.encode_headers(n, b"")),
            "body above the limit": (POST, 4, lambda n: f.encode_data(n, bytes(11))),
            "malformed": (GET + encode_fields([(b"te", b"x")]), 5, lambda n: b""),
            "self-dependent": (
                *(b"", 5),
                lambda n: f.encode_frame(1, 0x25, n, n.to_bytes(4, "big") + b"\0" + GET),
            ),
        }
        for name, (block, flags, provoke) in errors.items():
            for together in (False, True):
                balancer = self.balancer(max_body=10)
                pieces: list[bytes] = []
                for n in STREAMS:
                    head = f.encode_frame(f.HEADERS, flags, n, block) if block else b""
                    error = provoke(n)
                    pieces += [head + error] if together else [p for p in (head, error) if p]
                attacker, sent = self.attack(balancer, pieces)
                self.assert_calm(attacker)
                self.assertLessEqual(sent, 2 * (RESET_BURST + 1), name)
                bound = 2 if together else RESET_BURST + 2
                self.assertLessEqual(len(balancer.connectors), bound, name)
                self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_request_that_depends_on_itself_reaches_no_server(self) -> None:
        """Such a request is reset, in one frame or several, and the table stays right."""
        for flags in (0x21, 0x25):
            balancer = self.balancer()
            client = balancer.client(tls=H2_TLS)
            block = GET + b"\x40\x01x\x03abc"
            payload = b"\0\0\0\1\0" + (block if flags & 4 else block[:5])
            data = f.encode_frame(f.HEADERS, flags, 1, payload)
            if not flags & 4:
                data += f.encode_frame(f.CONTINUATION, 4, 1, block[5:])
            client.send(f.PREFACE + encode_settings(()) + data)
            self.assertEqual(balancer.connectors, [])
            client.send(f.encode_headers(3, GET + b"\xbe", True))
            self.assertIn(b"\r\nx: abc\r\n", balancer.accept().received())


class HeaderTests(AttackTestCase):
    """CONTINUATION floods and compression bombs."""

    def test_continuation_floods(self) -> None:
        """Few CONTINUATION frames are read, empty or not, and one block at most is kept."""
        for fragment in (b"", b"\x82", bytes(16384)):
            balancer = self.balancer()
            start = f.encode_frame(f.HEADERS, 1, 1, b"\x82")
            flood = [f.encode_frame(f.CONTINUATION, 0, 1, fragment)] * 1000
            attacker, sent = self.attack(balancer, [start, *flood])
            self.assert_calm(attacker)
            self.assertLess(sent, 12)
            self.assertEqual(len(balancer.connectors), 1)

    def test_continuation_with_end_headers(self) -> None:
        """Requests in the largest number of frames still count as requests only."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        parts = f.encode_frame(f.HEADERS, 1, 1, b"") + f.encode_frame(9, 0, 1, b"") * 7
        client.peer.send(parts + f.encode_frame(f.CONTINUATION, 4, 1, GET))
        self.assertIn(b"GET / HTTP/1.1\r\n", balancer.accept().received())

    def test_header_block_that_trickles(self) -> None:
        """An incomplete frame of a header block is limited by the header timeout."""
        balancer = self.balancer(timeouts=Timeouts(header=5, idle=1000))
        attacker, _ = self.attack(balancer, [])
        for byte in f.encode_headers(1, GET, True)[:-1]:
            if attacker.transport.write_closed:
                break
            attacker.send(bytes((byte,)))
            balancer.advance(0.5)
        self.assertTrue(attacker.transport.write_closed)

    def test_compression_bomb(self) -> None:
        """References to a large entry are decoded up to a bound, and fill no memory."""
        balancer = self.balancer()
        insert = GET + b"\x40\x01x" + encode_integer(4000, 0x7F, 0) + b"a" * 4000
        bomb = GET + b"\xbe" * 16000
        pieces = [f.encode_headers(1, insert, True)]
        pieces += [f.encode_headers(n, bomb, True) for n in STREAMS[1:]]
        tracemalloc.start()
        try:
            attacker, sent = self.attack(balancer, pieces)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assert_calm(attacker)
        self.assertEqual(sent, 2)
        self.assertLess(peak, 4 << 20)

    def test_lists_above_the_limit(self) -> None:
        """Requests with too many fields get 431, are never interpreted, and are counted."""
        balancer = self.balancer()
        block = GET + encode_fields([(b"x", b"")]) * 300
        tables = "balancebeam.protocols.http2.request_fields.RequestInterpreter.interpret"
        pieces = [f.encode_headers(n, block, True) for n in STREAMS]
        with patch(tables) as interpret:
            client = balancer.client(tls=H2_TLS)
            client.send(f.PREFACE + encode_settings(()))
            for piece in pieces:
                if client.transport.write_closed:
                    break
                client.send(piece)
            self.assertEqual(interpret.call_count, 0)
        self.assert_calm(client)
        self.assertEqual(balancer.connectors, [])


class FloodTests(AttackTestCase):
    """Frames that carry nothing."""

    FLOODS = (
        ("SETTINGS", encode_settings(())),
        ("SETTINGS that changes windows", encode_settings(((4, 1), (4, 2**31 - 1)))),
        ("SETTINGS that changes the table", encode_settings(((1, 0), (1, 4096)))),
        ("SETTINGS acknowledgement", SETTINGS_ACK),
        ("PING", f.encode_ping(bytes(8))),
        ("PING acknowledgement", f.encode_ping(bytes(8), ack=True)),
        ("empty DATA", f.encode_data(1, b"")),
        ("padding only", f.encode_frame(f.DATA, 8, 1, b"\xff" + bytes(255))),
        ("PRIORITY", f.encode_frame(f.PRIORITY, 0, 5, b"\0\0\0\0\1")),
        ("unknown", f.encode_frame(0xBB, 0, 0, b"x")),
        ("WINDOW_UPDATE of the connection", f.encode_window_update(0, 1)),
        ("WINDOW_UPDATE of a stream", f.encode_window_update(1, 1)),
        ("GOAWAY", f.encode_goaway(0, 0)),
    )

    def test_client_that_reads(self) -> None:
        """Each flood ends after the burst."""
        for name, piece in self.FLOODS:
            balancer = self.balancer()
            pieces = [f.encode_headers(1, POST), *[piece] * 10000]
            attacker, sent = self.attack(balancer, pieces)
            self.assert_calm(attacker)
            self.assertLessEqual(sent, GLITCH_BURST + 15, name)

    def test_client_that_does_not_read(self) -> None:
        """The queued acknowledgements are bounded, with time for the budget to refill."""
        balancer = self.balancer(timeouts=Timeouts(idle=1000))
        attacker, _ = self.attack(balancer, [])
        attacker.transport.stalled = True
        attacker.protocol.pauseProducing()
        attacker.transport._producer_paused = True
        before = attacker.transport.bytes_sent
        for _ in range(2000):
            if attacker.transport.write_closed or not attacker.transport.reading:
                break
            attacker.send(f.encode_ping(bytes(8)))
            balancer.clock.advance(0.1)
        self.assertFalse(attacker.transport.reading)
        self.assertLess(attacker.transport.bytes_sent - before, 20000)

    def test_responses_without_content_to_a_client_that_does_not_read(self) -> None:
        """Header blocks are limited by no window, so reading is paused."""
        balancer = self.balancer()
        attacker, _ = self.attack(balancer, [])
        attacker.transport.stalled = True
        attacker.protocol.pauseProducing()
        attacker.transport._producer_paused = True
        server = None
        sent = 0
        for n in STREAMS:
            if not attacker.transport.reading:
                break
            attacker.send(f.encode_headers(n, GET, True))
            if server is None:
                server = balancer.peers[1]
            server.send(b"HTTP/1.1 304 Not Modified\r\nETag: %b\r\n\r\n" % (b"x" * 100))
            sent += 1
        self.assertFalse(attacker.transport.reading)
        self.assertLess(sent, 500)

    def test_many_settings_in_one_frame(self) -> None:
        """A frame with more settings than clients need is a flood."""
        balancer = self.balancer()
        attacker, _ = self.attack(balancer, [encode_settings([(4, 1)] * 33)])
        self.assert_calm(attacker)

    def test_data_on_a_stream_that_was_reset(self) -> None:
        """What is on its way after a reset is ignored, more is a flood."""
        balancer = self.balancer()
        pieces = [f.encode_headers(1, LENGTH_3), f.encode_data(1, b"abcd")]
        attacker, sent = self.attack(balancer, [*pieces, *[f.encode_data(1, b"x")] * 10000])
        self.assert_calm(attacker)
        self.assertLess(sent, GLITCH_BURST + 20)

    def test_frames_of_a_client_that_uses_the_connection(self) -> None:
        """PING and WINDOW_UPDATE after each small message, as gRPC sends them, are no flood."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            client.send_data(stream, b"ping")
            server.send(b"4\r\npong\r\n")
            client.receive()
            update = f.encode_window_update(0, 4) + f.encode_window_update(stream, 4)
            client.peer.send(update + f.encode_ping(bytes(8)))
        self.assertFalse(client.peer.transport.write_closed)


class WindowTests(AttackTestCase):
    """Clients that request much and accept little."""

    def _hoard(self, settings: bytes, streams: int) -> tuple[MemoryBalancer, Peer]:
        balancer = self.balancer(timeouts=Timeouts(idle=5))
        attacker = balancer.client(tls=H2_TLS)
        attacker.send(f.PREFACE + settings + SETTINGS_ACK)
        for n in STREAMS[:streams]:
            attacker.send(f.encode_headers(n, GET, True))
            server = balancer.accept()
            server.send(HEAD_OF_LARGE)
            while server.transport.reading:
                server.send(bytes(10000))
        return balancer, attacker

    def test_no_window(self) -> None:
        """Without window, little is kept for each stream, and not for longer than the timeout."""
        for settings in (encode_settings(((4, 0),)), encode_settings(((4, 1),))):
            balancer, attacker = self._hoard(settings, 128)
            queued = [stream.queued_bytes for stream in attacker.protocol.streams.values()]
            self.assertEqual(len(queued), 128)
            self.assertLess(max(queued), 64 * 1024)
            for _ in range(4):
                balancer.advance(2)
                attacker.send(f.encode_ping(bytes(8)))
            self.assertEqual(len(attacker.protocol.streams), 0)
            self.assertEqual(balancer.servers[0].in_flight, 0)
            witness = Http2Client(balancer)
            stream = witness.request()
            balancer.accept().send(OK)
            witness.receive()
            self.assertTrue(witness.responses[stream].ended)

    def test_complete_response_without_window(self) -> None:
        """A response that is complete at the server frees the server, and expires too."""
        balancer = self.balancer(timeouts=Timeouts(idle=5))
        attacker, _ = self.attack(
            balancer, [encode_settings(((4, 0),)), f.encode_headers(1, GET, True)]
        )
        balancer.accept().send(OK)
        self.assertEqual(balancer.servers[0].in_flight, 0)
        self.assertEqual(attacker.protocol.streams[1].queued_bytes, 5)
        for _ in range(4):
            balancer.advance(2)
            attacker.send(f.encode_ping(bytes(8)))
        self.assertEqual(len(attacker.protocol.streams), 0)

    def test_windows_of_one_byte(self) -> None:
        """Content that is requested byte by byte ends by the budget, not by the memory."""
        balancer, attacker = self._hoard(encode_settings(((4, 0),)), 1)
        before = attacker.transport.bytes_sent
        for _ in range(10000):
            if attacker.transport.write_closed:
                break
            attacker.send(f.encode_window_update(1, 1))
        self.assert_calm(attacker)
        self.assertLess(attacker.transport.bytes_sent - before, 100000)
        self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_window_games(self) -> None:
        """Windows above the limit by SETTINGS or WINDOW_UPDATE end the connection or the stream."""
        limit = 2**31 - 1
        for data, code in (
            (encode_settings(((4, limit),)) + f.encode_window_update(0, limit), 3),
            (f.encode_window_update(1, limit - 65535) + encode_settings(((4, 65536),)), 3),
        ):
            attacker, _ = self.attack(self.balancer(), [f.encode_headers(1, GET, True), data])
            self.assertEqual(goaway_code(attacker.received()), code)

    def test_slow_uploads_on_all_streams(self) -> None:
        """Uploads to a server that does not read keep a window each, and no stream stops."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        servers: list[Any] = []
        streams = [client.start(request_fields("POST")) for _ in range(127)]
        for number, stream in enumerate(streams):
            server = balancer.accept(number)
            server.transport.stalled = True
            servers.append(server)
            sent = 0
            while client.h2.local_flow_control_window(stream) >= 16384 and sent < 300000:
                client.send_data(stream, bytes(16384))
                sent += 16384
            self.assertLess(sent, 200000)
        last = client.request(request_fields("POST"), b"x")
        balancer.accept().send(OK)
        client.receive()
        self.assertTrue(client.responses[last].ended)


class SilenceTests(AttackTestCase):
    """Clients that stop, or send byte by byte."""

    def test_half_a_preface(self) -> None:
        """A connection that stops in the preface is closed by the header timeout."""
        balancer = self.balancer(timeouts=Timeouts(header=5))
        for data in (b"", f.PREFACE[:12], f.PREFACE, f.PREFACE + encode_settings(())[:4]):
            peer = balancer.client(tls=H2_TLS)
            if data:
                peer.send(data)
            balancer.advance(8)
            self.assertTrue(peer.transport.write_closed or peer.transport.closing)

    def test_settings_without_acknowledgement(self) -> None:
        """A client that does not acknowledge SETTINGS is closed with SETTINGS_TIMEOUT."""
        balancer = self.balancer(timeouts=Timeouts(header=5, idle=100))
        peer = balancer.client(tls=H2_TLS)
        peer.send(f.PREFACE + encode_settings(()))
        peer.received()
        balancer.advance(8)
        self.assertEqual(goaway_code(peer.received()), 4)

    def test_slow_data_frame_is_no_incomplete_header(self) -> None:
        """A DATA frame on a slow link may take longer than the header timeout."""
        balancer = self.balancer(timeouts=Timeouts(header=5, idle=60))
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        data = f.encode_data(stream, b"x" * 100, True)
        client.peer.send(data[:50])
        balancer.advance(20)
        client.peer.send(data[50:])
        self.assertIn(b"x" * 100, server.received())
