"""Random interleavings of streams over HTTP/2, with the `h2` library as a strict client."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http2 import frames as f
from tests.helpers.http2_client import Http2Client, request_fields
from tests.helpers.memory import MemoryBalancer, Peer

STEPS = (
    *("open", "upload", "upload", "download", "download", "download", "finish", "finish"),
    *("cancel", "settings", "ping", "window"),
)


@define
class Stream:
    """
    What was sent on one stream.

    Attributes:
        number: its identifier.
        server: the connection that serves it.
        uploaded: content that the client has sent.
        downloaded: content that the server has sent.
        request_ended: the client has ended the stream.
        cancelled: the client has reset the stream.
        complete: the server has completed the response.
        trailers: the trailers of the response.
        forwarded: what the server has received.
    """

    number: int
    server: Peer
    uploaded: bytes = b""
    downloaded: bytes = b""
    request_ended: bool = False
    cancelled: bool = False
    complete: bool = False
    started: bool = False
    trailers: dict[str, str] = field(factory=dict)
    forwarded: bytes = b""


class Run:
    """One interleaving; each step takes two numbers that select what it does."""

    def __init__(self) -> None:
        """Connect a client."""
        self.balancer = MemoryBalancer()
        self.client = Http2Client(self.balancer)
        self.streams: list[Stream] = []

    def _pick(self, number: int, condition: Any) -> Stream | None:
        candidates = [s for s in self.streams if not s.cancelled and condition(s)]
        return candidates[number % len(candidates)] if candidates else None

    def open(self, number: int, size: int) -> None:
        """Send the head of a request, which ends the stream in every third case."""
        if sum(not s.complete and not s.cancelled for s in self.streams) >= 5:
            return
        known = len(self.balancer.connectors)
        fields = request_fields("POST", f"/{len(self.streams)}")
        ended = number % 3 == 0
        stream_id = self.client.request(fields) if ended else self.client.start(fields)
        if len(self.balancer.connectors) > known:
            server = self.balancer.accept()
        else:
            exchange = self.client.peer.protocol.streams[stream_id]
            server = next(p for p in self.balancer.peers if p.protocol is exchange.connection)
        server.received() if ended else None
        self.streams.append(Stream(stream_id, server, request_ended=ended))

    def upload(self, number: int, size: int) -> None:
        """Send content with padding, and the end in every fourth case."""
        stream = self._pick(number, lambda s: not s.request_ended and not s.complete)
        if stream is None:
            return
        h2 = self.client.h2
        limit = min(h2.local_flow_control_window(stream.number), h2.max_outbound_frame_size)
        padding = number % 7
        size = max(0, min(size % 20000, limit - 8))
        ended = number % 4 == 0
        content = bytes((number % 256,)) * size
        stream.uploaded += content
        stream.request_ended = ended
        h2.send_data(stream.number, content, ended, pad_length=padding or None)
        self.client.flush()
        stream.forwarded += stream.server.received()

    def download(self, number: int, size: int) -> None:
        """Send content from the server, unless that is paused."""
        stream = self._pick(number, lambda s: not s.complete)
        if stream is None or not stream.server.transport.reading:
            return
        size = size % 40000 + 1
        content = bytes((number % 256,)) * size
        head = b"" if stream.started else b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream.started = True
        stream.downloaded += content
        stream.server.send(head + b"%x\r\n%b\r\n" % (size, content))
        self.client.receive(acknowledge=number % 5 != 0)

    def finish(self, number: int, size: int) -> None:
        """Complete the response of a complete request, with trailers in every second case."""
        stream = self._pick(number, lambda s: s.request_ended and not s.complete)
        if stream is None or not stream.server.transport.reading:
            return
        if not stream.started:
            stream.server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if number % 2:
            stream.trailers = {"x-sum": str(size)}
        lines = b"".join(
            b"%b: %b\r\n" % (n.encode(), v.encode()) for n, v in stream.trailers.items()
        )
        stream.forwarded += stream.server.received()
        stream.server.send(b"0\r\n" + lines + b"\r\n")
        stream.complete = True
        self.client.receive()

    def cancel(self, number: int, size: int) -> None:
        """Reset a stream."""
        stream = self._pick(number, lambda s: not s.complete)
        if stream is not None:
            stream.cancelled = True
            self.client.reset(stream.number)

    def settings(self, number: int, size: int) -> None:
        """Change the initial window and the largest frame."""
        values: dict[SettingCodes | int, int] = {
            SettingCodes.INITIAL_WINDOW_SIZE: size,
            SettingCodes.MAX_FRAME_SIZE: 16384 + size,
        }
        self.client.h2.update_settings(values)
        self.client.flush()

    def ping(self, number: int, size: int) -> None:
        """Send PING."""
        self.client.peer.send(f.encode_ping(bytes(8)))

    def window(self, number: int, size: int) -> None:
        """Open the window of the connection."""
        self.client.h2.increment_flow_control_window(size + 1)
        self.client.flush()

    def complete(self) -> None:
        """Open all windows, and complete all requests and responses."""
        client = self.client
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
        client.h2.increment_flow_control_window(2**24)
        client.flush()
        for stream in self.streams:
            if stream.cancelled or stream.complete:
                continue
            if not stream.request_ended:
                client.send_data(stream.number, b"", True)
                stream.request_ended = True
            assert stream.server.transport.reading
            if not stream.started:
                stream.server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            stream.forwarded += stream.server.received()
            stream.server.send(b"0\r\n\r\n")
            client.receive()


class InterleavingTests(SynchronousTestCase):
    """Every response is right, and nothing is left."""

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(
            st.tuples(st.sampled_from(STEPS), st.integers(0, 1000), st.integers(0, 70000)),
            max_size=50,
        )
    )
    def test_interleavings(self, steps: list[tuple[str, int, int]]) -> None:
        """Content, trailers and ends of all streams arrive, and no state remains."""
        run = Run()
        try:
            for name, number, size in steps:
                getattr(run, name)(number, size)
            run.complete()
            channel = run.client.peer.protocol
            for stream in run.streams:
                if stream.cancelled:
                    continue
                response = run.client.responses[stream.number]
                self.assertEqual(response.status, "200")
                self.assertEqual(response.content, stream.downloaded)
                self.assertTrue(response.ended)
                self.assertEqual(response.trailers, stream.trailers)
                self.assertIsNone(response.reset)
                if stream.uploaded:
                    self.assertEqual(content_of(stream.forwarded), stream.uploaded)
            self.assertEqual(dict(channel.streams), {})
            self.assertFalse(channel.output._ready)
            self.assertEqual(run.balancer.servers[0].in_flight, 0)
            self.assertFalse(channel.closing)
        finally:
            run.balancer.stop()


def content_of(forwarded: bytes) -> bytes:
    """Return the content of a chunked request."""
    body = forwarded.partition(b"\r\n\r\n")[2]
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        content += body[:length]
        body = body[length + 2 :]
    return content
