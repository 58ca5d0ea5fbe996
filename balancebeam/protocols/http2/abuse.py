"""
Budgets against floods: what costs the proxy more than the client, and is rarely needed.

Each connection has two token buckets. They refill with time, and with the regular use of the
connection: a proxy in front of this one carries many users on one connection, so what is a flood
from a browser is usual there.
"""

from __future__ import annotations

from balancebeam.protocols.http2.errors import ENHANCE_YOUR_CALM, Http2ConnectionError

# Streams that are reset by the client, refused, or reset for an error of the client
# (CVE-2023-44487, CVE-2025-8671). A browser that leaves a page may cancel all its streams, 128
# at most, and some more of the next page. The rate is that of nghttp2, which allows a burst of
# 1000; Envoy closes a connection after 500 streams of which half were reset within a second, nginx
# after 1000 requests, and HAProxy not at all. What is reset in the same batch of input reaches no
# server (`RequestReader.finish_batch`), so this bounds only resets that arrive later.
RESET_BURST = 200
RESETS_PER_SECOND = 33.0
# As many streams may be reset as are not: a server answers their requests at the usual cost.
RESETS_PER_STREAM = 1.0

# Frames that carry nothing for a stream: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA and
# unknown frames. A frame costs some microseconds, so a burst costs as much as ten requests.
GLITCH_BURST = 200
GLITCHES_PER_SECOND = 33.0
# Envoy allows ten WINDOW_UPDATE frames for a DATA frame that was sent to the client
# (max_inbound_window_update_frames_per_data_frame_sent), and as many PRIORITY frames for a
# stream.
GLITCHES_PER_STREAM = 10.0
BYTES_PER_GLITCH = 512
# A client may measure the round-trip time by PING, and open both windows, after each small message
# that it receives, as gRPC does. A DATA frame with content that it sends costs more than a glitch.
GLITCHES_PER_DATA_SENT = 10
GLITCHES_PER_DATA_RECEIVED = 1

# RFC 9113, 10.5.1 has no limit. nghttp2 accepts 8 CONTINUATION frames (CVE-2024-28182).
MAX_CONTINUATIONS = 8


class AbuseBudget:
    """The token buckets of one connection."""

    __slots__ = (
        "_bytes",
        "_data_earnings",
        "_glitch_streams",
        "_glitches",
        "_reset_count",
        "_reset_streams",
        "_resets",
        "_since",
    )

    def __init__(self, now: float) -> None:
        """
        Create full buckets.

        Args:
            now: The time in seconds.
        """
        self._resets = float(RESET_BURST)
        self._glitches = float(GLITCH_BURST)
        self._since = now
        # What the buckets have been refilled for.
        self._reset_streams = 0
        self._reset_count = 0
        self._glitch_streams = 0
        self._bytes = 0
        self._data_earnings = 0

    def spend_reset(self, now: float, streams: int) -> None:
        """
        Count a stream that ends by a reset.

        Args:
            now: The time in seconds.
            streams: The number of streams that the client has opened.

        Raises:
            Http2ConnectionError: There were too many.
        """
        self._resets -= 1.0
        self._reset_count += 1
        if self._resets < 0:
            self._refill(now)
            kept = max(0, streams - self._reset_streams - self._reset_count)
            self._reset_streams, self._reset_count = streams, 0
            self._resets = min(self._resets + kept * RESETS_PER_STREAM, float(RESET_BURST))
            if self._resets < 0:
                raise Http2ConnectionError(ENHANCE_YOUR_CALM, "too many streams reset")

    def spend_glitch(
        self,
        now: float,
        streams: int,
        bytes_sent: int,
        data_sent: int = 0,
        data_received: int = 0,
    ) -> None:
        """
        Count a frame that carries nothing for a stream.

        Args:
            now: The time in seconds.
            streams: The number of streams that the client has opened.
            bytes_sent: Bytes of content that were sent to the client.
            data_sent: DATA frames that were sent to the client, short responses not included.
            data_received: DATA frames with content that were received.

        Raises:
            Http2ConnectionError: There were too many.
        """
        self._glitches -= 1.0
        if self._glitches < 0:
            self._refill(now)
            earned = (streams - self._glitch_streams) * GLITCHES_PER_STREAM
            earned += (bytes_sent - self._bytes) // BYTES_PER_GLITCH
            data_earnings = data_sent * GLITCHES_PER_DATA_SENT
            data_earnings += data_received * GLITCHES_PER_DATA_RECEIVED
            earned += data_earnings - self._data_earnings
            self._data_earnings = data_earnings
            self._glitch_streams = streams
            self._bytes = bytes_sent
            self._glitches = min(self._glitches + earned, float(GLITCH_BURST))
            if self._glitches < 0:
                raise Http2ConnectionError(ENHANCE_YOUR_CALM, "too many control frames")

    def _refill(self, now: float) -> None:
        """Add what the time since the last refill allows."""
        elapsed = max(0.0, now - self._since)
        self._since = now
        self._resets = min(self._resets + elapsed * RESETS_PER_SECOND, float(RESET_BURST))
        self._glitches = min(self._glitches + elapsed * GLITCHES_PER_SECOND, float(GLITCH_BURST))
