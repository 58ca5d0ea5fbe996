"""Output of HTTP/2 connections: windows, turns, bounds and backpressure."""

from __future__ import annotations

from collections import deque

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.transport import batch_scheduler
from balancebeam.protocols.http2.frames import DEFAULT_WINDOW_SIZE, FRAME_HEADER
from balancebeam.protocols.http2.output import MAX_QUEUED, FrameOutput
from tests.helpers.memory import MemoryTransport


class FakeStream:
    """An `OutputStream` that records what happens to it."""

    def __init__(self, stream_id: int, window: int = DEFAULT_WINDOW_SIZE) -> None:
        """Create a stream with a send window."""
        self.stream_id = stream_id
        self.send_window = window
        self.queue: deque[bytes] | None = None
        self.queued_bytes = 0
        self.end_queued = False
        self.trailer_block = b""
        self.ended = self.grown = self.shrunk = 0

    def end_sent(self) -> None:
        """Count."""
        self.ended += 1

    def queue_grown(self) -> None:
        """Count."""
        self.grown += 1

    def queue_shrunk(self) -> None:
        """Count."""
        self.shrunk += 1


class OutputTests(SynchronousTestCase):
    """One output with several streams."""

    def setUp(self) -> None:
        """Create an output on a transport in memory."""
        self.transport = MemoryTransport(None)
        self.output = FrameOutput(self.transport.write, batch_scheduler(self.transport))

    def _frames(self) -> list[tuple[int, int, int]]:
        """Return stream, size and flags of each frame that was written."""
        self.output.flush()
        data, frames = self.transport.read(), []
        while data:
            word, flags, stream = FRAME_HEADER.unpack_from(data)
            frames.append((stream, word >> 8, flags))
            data = data[9 + (word >> 8) :]
        return frames

    def test_turns(self) -> None:
        """Streams that wait for the connection send one frame each in turn."""
        streams = [FakeStream(number, 10**6) for number in (1, 3, 5)]
        self.output.window = 0
        for stream in streams:
            self.output.send_content(stream, bytes(40000), True)
        self.output.widen_connection(10**6)
        order = [stream for stream, _, _ in self._frames()]
        self.assertEqual(order, [1, 3, 5] * 3)
        self.assertEqual([stream.ended for stream in streams], [1, 1, 1])

    def test_a_stream_without_window_stops_no_other(self) -> None:
        """A stream waits for its own window alone."""
        slow, quick = FakeStream(1, 0), FakeStream(3)
        self.assertFalse(self.output.send_content(slow, b"slow", True))
        self.assertTrue(self.output.send_content(quick, b"quick", True))
        self.assertEqual(self._frames(), [(3, 5, 1)])
        slow.send_window = 3
        self.output.stream_widened(slow)
        slow.send_window = 1
        self.output.stream_widened(slow)
        self.assertEqual(self._frames(), [(1, 3, 0), (1, 1, 1)])

    def test_negative_windows(self) -> None:
        """A negative window sends nothing, and an empty end needs no window."""
        stream, other = FakeStream(1, -5), FakeStream(3, -5)
        self.output.send_content(stream, b"x", False)
        self.assertTrue(self.output.send_content(other, b"", True))
        self.assertEqual(self._frames(), [(3, 0, 1)])
        self.assertEqual(other.send_window, -5)

    def test_bounded_queue(self) -> None:
        """The stream is notified when too much waits, and small parts become few objects."""
        stream = FakeStream(1, 0)
        for _ in range(MAX_QUEUED):
            self.output.send_content(stream, b"x", False)
        self.assertEqual(stream.grown, 0)
        self.output.send_content(stream, b"x", False)
        self.assertEqual(stream.grown, 1)
        assert stream.queue is not None
        self.assertLessEqual(len(stream.queue), 3)

    def test_blocked(self) -> None:
        """Content waits while the transport accepts none; control frames do not, and count."""
        stream = FakeStream(1)
        self.output.block()
        self.output.append(b"\0" * 9)
        self.output.send_headers(FakeStream(3), b"\x88", True)
        self.assertFalse(self.output.send_content(stream, b"x", True))
        self.assertEqual([frame[0] for frame in self._frames()], [0, 3])
        self.assertEqual(self.output.control_bytes, 9 + 10)
        self.output.unblock()
        self.assertEqual(self._frames(), [(1, 1, 1)])
        self.assertEqual(stream.ended, 1)

    def test_dropped_queue(self) -> None:
        """What waits for a stream that was reset is not sent."""
        stream = FakeStream(1)
        self.output.block()
        self.output.send_content(stream, b"x", True)
        self.output.drop_queue(stream)
        self.output.unblock()
        self.assertEqual(self._frames(), [])
        self.assertEqual(stream.ended, 0)

    def test_trailers(self) -> None:
        """Trailers follow the content that waits, and end the stream."""
        stream = FakeStream(1, 2)
        self.output.send_content(stream, b"abc", False)
        self.assertFalse(self.output.send_trailers(stream, b"\x88"))
        stream.send_window = 1
        self.output.stream_widened(stream)
        self.assertEqual(self._frames(), [(1, 2, 0), (1, 1, 0), (1, 1, 5)])

    def test_large_frames_of_the_client(self) -> None:
        """Waiting content is sent in frames of 16 KiB even if the client accepts larger ones."""
        self.output.max_frame_size = 10**6
        stream = FakeStream(1, 0)
        self.output.send_content(stream, bytes(40000), True)
        stream.send_window = 10**6
        self.output.stream_widened(stream)
        self.assertEqual([size for _, size, _ in self._frames()], [16384, 16384, 7232])
