"""Flow control over HTTP/2: backpressure per stream, in both directions."""

from __future__ import annotations

from h2.settings import SettingCodes

from tests.helpers.cases import BalancerTestCase
from tests.helpers.http2_client import Http2Client, request_fields
from tests.helpers.memory import OK

KILOBYTE = 1024


def head(length: int) -> bytes:
    """Return the head of a response with `length` bytes."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length


class DownloadTests(BalancerTestCase):
    """Responses that are larger than the windows of the client."""

    def test_window_of_a_stream(self) -> None:
        """A stream without window waits, its server is paused, and other streams continue."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.h2.increment_flow_control_window(10**6)
        slow = client.request()
        server = balancer.accept()
        server.send(head(1000000))
        sent = 0
        while server.transport.reading:
            server.send(b"x" * 10000)
            sent += 10000
            self.assertLess(sent, 200000)
        client.receive(acknowledge=False)
        self.assertEqual(len(client.responses[slow].content), 65535)
        quick = client.request()
        balancer.accept().send(OK)
        client.receive(acknowledge=False)
        self.assertTrue(client.responses[quick].ended)
        # The windows open: all that waits is sent, and the server continues.
        client.h2.increment_flow_control_window(10**6, slow)
        client.flush()
        self.assertTrue(server.transport.reading)
        server.send(b"x" * (1000000 - sent))
        client.receive()
        self.assertEqual(len(client.responses[slow].content), 1000000)
        self.assertTrue(client.responses[slow].ended)

    def test_complete_response_that_waits(self) -> None:
        """The end of a response that is complete at the server waits for the window."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        balancer.accept().send(head(70000) + b"x" * 70000)
        client.receive(acknowledge=False)
        response = client.responses[stream]
        self.assertEqual((len(response.content), response.ended), (65535, False))
        self.assertEqual(balancer.servers[0].in_flight, 0)
        client.h2.increment_flow_control_window(100000)
        client.h2.increment_flow_control_window(100000, stream)
        client.flush()
        self.assertEqual((len(response.content), response.ended), (70000, True))
        self.assertFalse(client.peer.protocol.streams)

    def test_trailers_wait_behind_content(self) -> None:
        """Trailers follow the content that has waited for the window."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        body = b"11170\r\n" + b"x" * 0x11170 + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
        balancer.accept().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        client.receive(acknowledge=False)
        response = client.responses[stream]
        self.assertEqual(response.trailers, {})
        client.h2.increment_flow_control_window(100000)
        client.h2.increment_flow_control_window(100000, stream)
        client.flush()
        self.assertEqual(len(response.content), 0x11170)
        self.assertEqual((response.trailers, response.ended), ({"x-sum": "1"}, True))

    def test_streams_take_turns(self) -> None:
        """Streams that wait for the window of the connection get it in turns."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10**6})
        client.flush(acknowledge=False)
        streams = [client.request() for _ in range(3)]
        for number in range(3):
            balancer.accept(number).send(head(100000) + b"x" * 100000)
        client.receive(acknowledge=False)
        client.h2.increment_flow_control_window(96 * KILOBYTE)
        client.flush(acknowledge=False)
        sizes = [len(client.responses[stream].content) for stream in streams]
        self.assertEqual(sum(sizes), 65535 + 96 * KILOBYTE)
        self.assertGreaterEqual(min(sizes[1:]), 2 * 16 * KILOBYTE)

    def test_settings_change_the_windows_of_open_streams(self) -> None:
        """A smaller initial window makes the window of a stream negative, a larger one opens it."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        server = balancer.accept()
        server.send(head(70000) + b"x" * 60000)
        client.receive(acknowledge=False)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.flush(acknowledge=False)
        self.assertEqual(client.peer.protocol.streams[stream].send_window, 5535 - 64535)
        server.send(b"x" * 10000)
        client.receive(acknowledge=False)
        self.assertEqual(len(client.responses[stream].content), 60000)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100000})
        client.h2.increment_flow_control_window(100000)
        client.flush(acknowledge=False)
        self.assertEqual(len(client.responses[stream].content), 70000)

    def test_client_that_does_not_read(self) -> None:
        """While the transport accepts nothing, servers are paused, and memory is bounded."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.h2.increment_flow_control_window(10**6)
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, request_fields(), end_stream=True)
        client.h2.increment_flow_control_window(10**6, stream)
        client.flush()
        server = balancer.accept()
        client.peer.transport.stalled = True
        server.send(head(1000000))
        sent = 0
        while server.transport.reading:
            server.send(b"x" * 10000)
            sent += 10000
            self.assertLess(sent, 300000)
        client.peer.transport.stalled = False
        client.receive()
        self.assertTrue(server.transport.reading)
        server.send(b"x" * (1000000 - sent))
        client.receive()
        self.assertEqual(len(client.responses[stream].content), 1000000)


class UploadTests(BalancerTestCase):
    """Request bodies that are larger than the windows of the proxy."""

    def test_server_that_does_not_read(self) -> None:
        """While a server does not read, the window of its stream stays closed; others go on."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        slow = client.start(request_fields("POST"))
        server = balancer.accept()
        server.transport.stalled = True
        sent = 0
        while client.h2.local_flow_control_window(slow) >= 10000:
            client.send_data(slow, b"x" * 10000)
            sent += 10000
            self.assertLess(sent, 300000)
        other = client.request(request_fields("POST"), b"y" * 10000)
        second = balancer.accept()
        self.assertIn(b"y" * 10000, second.received())
        second.send(OK)
        client.receive()
        self.assertTrue(client.responses[other].ended)
        server.transport.stalled = False
        server.received()
        client.receive()
        for _ in range(30):
            client.send_data(slow, b"x" * 10000)
            server.received()
        client.send_data(slow, b"", end=True)
        server.send(OK)
        client.receive()
        self.assertTrue(client.responses[slow].ended)

    def test_content_beyond_the_window(self) -> None:
        """Content beyond the window of a stream is FLOW_CONTROL_ERROR."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        server.transport.stalled = True
        frame = b"\x00\x40\x00\x00\x00" + stream.to_bytes(4, "big") + b"x" * 16384
        for _ in range(12):
            client.peer.send(frame)
        client.receive()
        self.assertEqual(client.responses[stream].reset, 3)

    def test_padding_counts(self) -> None:
        """Padding uses up the windows, and is not forwarded."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        server.received()
        for _ in range(600):
            client.h2.send_data(stream, b"a", pad_length=255)
            client.flush()
        self.assertEqual(server.received().count(b"1\r\na\r\n"), 600)
