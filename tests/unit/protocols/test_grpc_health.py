"""Messages of grpc.health.v1."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.grpc_health import GrpcMessageError, encode_check, parse_status


class GrpcHealthTests(SynchronousTestCase):
    """One request, and one response."""

    def test_request(self) -> None:
        """The name of the service is field 1; a long name has a length of two bytes."""
        self.assertEqual(encode_check(""), b"\0\0\0\0\0")
        self.assertEqual(encode_check("a.B"), b"\0\0\0\0\5\x0a\3a.B")
        self.assertEqual(encode_check("x" * 300)[:8], b"\0\0\0\1\x2f\x0a\xac\2")

    def test_response(self) -> None:
        """The status is field 1; a missing field is 0, other fields are skipped."""
        for message, status in (
            (b"\x08\1", 1),
            (b"", 0),
            (b"\x08\1\x08\2", 2),
            (b"\x12\3abc\x08\1", 1),
            (b"\x15abcd\x08\1", 1),
            (b"\x11abcdefgh\x08\1", 1),
            (b"\x10\xff\x01\x08\1", 1),
        ):
            content = b"\0" + len(message).to_bytes(4, "big") + message
            self.assertEqual(parse_status(content), status, message)

    @given(st.binary(max_size=40))
    def test_any_bytes(self, content: bytes) -> None:
        """Any content is parsed or rejected."""
        for data in (content, b"\0" + len(content).to_bytes(4, "big") + content):
            with contextlib.suppress(GrpcMessageError):
                self.assertGreaterEqual(parse_status(data), 0)
