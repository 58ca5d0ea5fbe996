"""gRPC: content types, deadlines, status messages and messages."""

from __future__ import annotations

from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols import grpc, grpc_health


def request_head(*lines: bytes) -> bytes:
    """Return the head of a request with these field lines, as HTTP/2 requests have it."""
    return b"".join(line + b"\r\n" for line in (b"POST /a.B/C HTTP/1.1", b"Host: a", *lines))


def timeout(value: bytes) -> float | None:
    """Return the timeout of a request with this value of grpc-timeout."""
    return grpc.parse_timeout(request_head(b"grpc-timeout: " + value, b"te: trailers"))


class ContentTypeTests(SynchronousTestCase):
    """Which requests are gRPC."""

    def test_content_types(self) -> None:
        """The media type is application/grpc, with a message format or parameters."""
        for value, expected in (
            (b"application/grpc", True),
            (b"application/grpc+proto", True),
            (b"application/grpc+json;x=y", True),
            (b"application/grpc;charset=utf-8", True),
            (b"application/grpc ; a=b", True),
            (b"application/grpc-web", False),
            (b"application/grpc-web+proto", False),
            (b"application/grpcx", False),
            (b"application/json", False),
            (b"", False),
        ):
            for lines in ((b"content-type: " + value,), (b"content-type: " + value, b"a: b")):
                self.assertIs(grpc.is_grpc(request_head(*lines)), expected, value)

    def test_other_fields(self) -> None:
        """The value of another field is no content type."""
        self.assertFalse(grpc.is_grpc(request_head(b"x-content-type: application/grpc")))
        self.assertFalse(grpc.is_grpc(request_head()))


class TimeoutTests(SynchronousTestCase):
    """grpc-timeout."""

    def test_units(self) -> None:
        """The unit is one letter."""
        for value, seconds in (
            (b"2H", 7200),
            (b"3M", 180),
            (b"10S", 10),
            (b"250m", 0.25),
            (b"99999999u", 99.999999),
            (b"1n", 1e-9),
            (b"0n", 0),
        ):
            self.assertAlmostEqual(timeout(value), seconds, 12, value)

    def test_invalid_values(self) -> None:
        """An invalid value is the same as none."""
        for value in (b"", b"1", b"S", b"123456789S", b"-1S", b"1.5S", b"1 S", b"1s", b"1Sx"):
            self.assertIsNone(timeout(value), value)
        self.assertIsNone(grpc.parse_timeout(request_head(b"x: y")))

    @given(st.integers(0, 10**8 - 1), st.sampled_from("HMSmun"))
    def test_every_valid_value(self, number: int, unit: str) -> None:
        """Up to eight digits and a unit are a number of seconds, never negative."""
        seconds = timeout(b"%d%b" % (number, unit.encode()))
        factor = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[unit]
        self.assertAlmostEqual(seconds, number * factor)

    @given(st.binary(max_size=12).filter(lambda value: b"\r" not in value and b"\n" not in value))
    def test_any_bytes(self, value: bytes) -> None:
        """Any other value gives no error."""
        seconds = timeout(value)
        self.assertTrue(seconds is None or seconds >= 0)


class ErrorTests(SynchronousTestCase):
    """The fields of trailers-only responses."""

    def test_statuses(self) -> None:
        """The status code of gRPC follows from the HTTP status."""
        for status, code in (
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (408, 4),
            (413, 8),
            (429, 8),
            (501, 12),
            (502, 14),
            (503, 14),
            (504, 4),
            (418, 2),
            (500, 2),
        ):
            self.assertEqual(grpc.grpc_status(status), code, status)

    def test_fields(self) -> None:
        """The response has its content type, code and message, and further fields."""
        self.assertEqual(
            grpc.error_fields(429, "100% too much", ((b"Retry-After", b"2"),)),
            [
                (b"content-type", b"application/grpc"),
                (b"grpc-status", b"8"),
                (b"grpc-message", b"100%25 too much"),
                (b"Retry-After", b"2"),
            ],
        )

    @given(st.text())
    def test_message_is_encoded(self, text: str) -> None:
        """Any text is visible ASCII on the wire, and the same after decoding."""
        text = text.encode("utf-8", "replace").decode()
        value = grpc.encode_status_message(text)
        self.assertTrue(all(0x20 <= byte <= 0x7E for byte in value), value)
        self.assertEqual(unquote(value.decode()), text)
        self.assertEqual(grpc.decode_status_message(value.decode()), text)

    @given(st.text(st.characters(max_codepoint=255)))
    def test_invalid_messages_are_decoded(self, value: str) -> None:
        """No value is an error, and what is no encoding stays."""
        decoded = grpc.decode_status_message(value)
        if "%" not in value:
            self.assertEqual(decoded, value)


class MessageTests(SynchronousTestCase):
    """The framing of messages, and the messages of grpc.health.v1."""

    @given(st.binary(max_size=300))
    def test_framing(self, message: bytes) -> None:
        """A message is the same after encoding and decoding."""
        self.assertEqual(grpc.decode_message(grpc.encode_message(message)), message)

    def test_invalid_framing(self) -> None:
        """What is not exactly one uncompressed message is an error."""
        for content in (b"", b"\0\0\0\0", b"\1\0\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\0x"):
            self.assertRaises(grpc.GrpcError, grpc.decode_message, content)

    def test_health_request(self) -> None:
        """The service is a string in field 1, left out if it is empty."""
        self.assertEqual(grpc_health.encode_request(""), b"")
        self.assertEqual(grpc_health.encode_request("a.B"), b"\x0a\x03a.B")
        self.assertEqual(grpc_health.encode_request("x" * 300)[:3], b"\x0a\xac\x02")

    def test_health_response(self) -> None:
        """The status is field 1; other fields are skipped, and the last value counts."""
        for message, status in (
            (b"", 0),
            (b"\x08\x01", 1),
            (b"\x08\x02", 2),
            (b"\x08\x03\x08\x01", 1),
            (b"\x12\x02ab\x08\x01", 1),
            (b"\x11" + bytes(8) + b"\x1d" + bytes(4) + b"\x20\xff\x01\x08\x01", 1),
            (b"\x08\x81\x80\x00", 1),
        ):
            self.assertEqual(grpc_health.decode_response(message), status, message)

    def test_malformed_health_response(self) -> None:
        """A malformed message is an error."""
        for message in (
            *(b"\x08", b"\x08\x80", b"\x08" + b"\x80" * 10 + b"\x01", b"\x12\x05ab", b"\x12"),
            *(b"\x11\0", b"\x0a\x01\x01", b"\x0f", b"\x00\x01", b"\x0b\x0c", b"\x1d\0\0"),
        ):
            self.assertRaises(grpc.GrpcError, grpc_health.decode_response, message)

    @given(st.binary(max_size=40))
    def test_any_health_response(self, message: bytes) -> None:
        """Any bytes are a status or a `GrpcError`."""
        try:
            status = grpc_health.decode_response(message)
        except grpc.GrpcError:
            return
        self.assertTrue(0 <= status < 2**64)

    def test_status_names(self) -> None:
        """Statuses have names in logs; unknown ones are numbers."""
        names = [grpc_health.serving_status_name(status) for status in (0, 1, 2, 3, 9)]
        self.assertEqual(names, ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "9"])
