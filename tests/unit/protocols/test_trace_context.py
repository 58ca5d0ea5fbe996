"""The field `traceparent` of W3C Trace Context."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.trace_context import (
    TraceParent,
    encode_traceparent,
    parse_traceparent,
)

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"


class TraceParentTests(SynchronousTestCase):
    """Parsing and encoding."""

    def test_example_of_the_recommendation(self) -> None:
        """The example of the recommendation is parsed."""
        parent = parse_traceparent(b"00-%b-%b-01" % (TRACE, SPAN))
        self.assertEqual(parent, TraceParent(int(TRACE, 16), int(SPAN, 16), 1))
        assert parent is not None
        self.assertTrue(parent.sampled)

    def test_invalid_values(self) -> None:
        """Zero ids, version ff, capital letters, other lengths and other characters are invalid."""
        for value in (
            *(b"", b"00", b"00-%b-%b" % (TRACE, SPAN), b"00-%b-%b-1" % (TRACE, SPAN)),
            b"00-%b-%b-01" % (b"0" * 32, SPAN),
            b"00-%b-%b-01" % (TRACE, b"0" * 16),
            b"ff-%b-%b-01" % (TRACE, SPAN),
            b"00-%b-%b-01" % (TRACE.upper(), SPAN),
            b"00-%b-%b-01-00" % (TRACE, SPAN),
            b"00-%b-%b-01-" % (TRACE, SPAN),
            b"00-%b-%b-01, 00-%b-%b-01" % (TRACE, SPAN, TRACE, SPAN),
            b"00_%b_%b_01" % (TRACE, SPAN),
            b"0g-%b-%b-01" % (TRACE, SPAN),
            b"00-%b-%b-0g" % (TRACE, SPAN),
            b"00-%b-%b-01\n" % (TRACE, SPAN),
            b"cc-%b-%b-01x" % (TRACE, SPAN),
        ):
            self.assertIsNone(parse_traceparent(value), value)

    def test_higher_versions(self) -> None:
        """Of a higher version the first four parts are used, and its unknown flags are cleared."""
        for value in (b"cc-%b-%b-f5", b"01-%b-%b-f5-anything", b"01-%b-%b-f5-"):
            parent = parse_traceparent(value % (TRACE, SPAN))
            self.assertEqual(parent, TraceParent(int(TRACE, 16), int(SPAN, 16), 1, False))

    @given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))
    def test_round_trip(self, trace_id: int, parent_id: int, flags: int) -> None:
        """An encoded value is parsed to the same ids and flags."""
        value = encode_traceparent(trace_id, parent_id, flags)
        self.assertEqual(parse_traceparent(value), TraceParent(trace_id, parent_id, flags))

    @given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f-]*", fullmatch=True))
    def test_any_bytes(self, value: bytes) -> None:
        """No value is an error of the program; what is accepted can be encoded again."""
        parent = parse_traceparent(value)
        if parent is not None:
            encoded = encode_traceparent(parent.trace_id, parent.parent_id, parent.flags)
            self.assertEqual(encoded[2:53], value[2:53])
