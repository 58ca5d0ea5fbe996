"""Frames and settings: encoders, parsers, and agreement with the `hyperframe` library."""

from __future__ import annotations

from hyperframe.frame import Frame
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http2 import errors, frames
from balancebeam.protocols.http2.abuse import GLITCH_BURST, RESET_BURST, AbuseBudget
from balancebeam.protocols.http2.errors import Http2ConnectionError, Http2StreamError, error_name
from balancebeam.protocols.http2.settings import (
    MAX_CONCURRENT_STREAMS,
    PeerSettings,
    encode_settings,
    parse_settings,
)


def parse(data: bytes) -> list[Frame]:
    """Parse frames by the library."""
    parsed = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        parsed.append(frame)
        data = data[9 + length :]
    return parsed


class FrameTests(SynchronousTestCase):
    """What is encoded here means the same to another implementation."""

    @given(st.integers(1, 2**31 - 1), st.binary(max_size=100), st.booleans(), st.integers(1, 30))
    def test_headers_are_split(self, stream: int, block: bytes, end: bool, size: int) -> None:
        """A long block becomes HEADERS and CONTINUATION; only the last has END_HEADERS."""
        parsed = parse(frames.encode_headers(stream, block, end, size))
        self.assertEqual(b"".join(frame.data for frame in parsed), block)
        self.assertTrue(all(frame.stream_id == stream for frame in parsed))
        ends = ["END_HEADERS" in frame.flags for frame in parsed]
        self.assertEqual(ends, [False] * (len(parsed) - 1) + [True])
        self.assertEqual("END_STREAM" in parsed[0].flags, end)

    def test_control_frames(self) -> None:
        """Each control frame has its fields."""
        (frame,) = parse(frames.encode_goaway(5, errors.ENHANCE_YOUR_CALM, b"x" * 1000))
        self.assertEqual((frame.last_stream_id, frame.error_code), (5, 11))
        self.assertEqual(frame.additional_data, b"x" * 256)
        (frame,) = parse(frames.encode_rst_stream(3, errors.CANCEL))
        self.assertEqual((frame.stream_id, frame.error_code), (3, 8))
        (frame,) = parse(frames.encode_window_update(0, 77))
        self.assertEqual(frame.window_increment, 77)
        (frame,) = parse(frames.encode_ping(b"12345678", ack=True))
        self.assertEqual((frame.opaque_data, "ACK" in frame.flags), (b"12345678", True))
        (frame,) = parse(frames.encode_data(1, b"abc", True))
        self.assertEqual((frame.data, "END_STREAM" in frame.flags), (b"abc", True))

    @given(st.binary(max_size=50), st.integers(1, 255))
    def test_padding(self, content: bytes, padding: int) -> None:
        """Padding is removed; padding as long as the payload is an error."""
        payload = bytes((padding,)) + content + b"\0" * padding
        self.assertEqual(frames.remove_padding(frames.PADDED, payload), content)
        with self.assertRaises(Http2ConnectionError):
            frames.remove_padding(frames.PADDED, bytes((padding,)) + b"\0" * (padding - 1))

    def test_settings(self) -> None:
        """Settings are encoded, parsed and applied; unknown ones are ignored."""
        settings = [(MAX_CONCURRENT_STREAMS, 7), (0x4242, 1), (5, 2**20)]
        (frame,) = parse(encode_settings(settings))
        self.assertEqual(frame.settings, dict(settings))
        peer = PeerSettings()
        peer.apply(parse_settings(0, encode_settings(settings)[9:]))
        self.assertEqual((peer.max_concurrent_streams, peer.max_frame_size), (7, 2**20))

    def test_error_texts(self) -> None:
        """Errors name their code, known or not."""
        self.assertEqual(error_name(0x99), "0x99")
        self.assertEqual(str(Http2ConnectionError(1, "x")), "PROTOCOL_ERROR: x")
        self.assertEqual(str(Http2StreamError(3, 8, "x")), "stream 3: CANCEL: x")


class AbuseBudgetTests(SynchronousTestCase):
    """Budgets stop floods, and not the regular use of a busy connection."""

    def test_resets(self) -> None:
        """A burst is allowed, and one reset for each stream that is not reset."""
        budget = AbuseBudget(0.0)
        with self.assertRaises(Http2ConnectionError):
            for count in range(RESET_BURST + 1):
                budget.spend_reset(0.0, count + 1)
        budget = AbuseBudget(0.0)
        for count in range(20 * RESET_BURST):
            budget.spend_reset(0.0, 2 * count + 2)

    def test_resets_over_time(self) -> None:
        """33 resets per second are allowed for ever."""
        budget = AbuseBudget(0.0)
        for count in range(5000):
            budget.spend_reset(count / 33.0, count + 1)

    def test_glitches(self) -> None:
        """Frames without effect are bounded unless content is sent meanwhile."""
        budget = AbuseBudget(0.0)
        with self.assertRaises(Http2ConnectionError):
            for _ in range(GLITCH_BURST + 1):
                budget.spend_glitch(0.0, 0, 0)
        budget = AbuseBudget(0.0)
        for count in range(10 * GLITCH_BURST):
            budget.spend_glitch(0.0, 0, count * 512)
