"""Requests of HTTP/2 that differ in their path only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.request_head import MAX_REQUEST_LINE, RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http2.request_fields import (
    FieldSection,
    RequestFieldsError,
    RequestInterpreter,
    TrailerSection,
)


class WithPathTests(SynchronousTestCase):
    """`RequestInterpreter.with_path` and `RequestInterpreter.interpret` have equal results."""

    def setUp(self) -> None:
        """Create an interpreter."""
        self.interpreter = RequestInterpreter(RequestHeadParser(), secure=False)

    def interpret(self, path: bytes, method: bytes = b"GET") -> FieldSection:
        """Interpret a request for a path."""
        return self.interpreter.interpret(
            [
                *((b":method", method), (b":scheme", b"http"), (b":authority", b"example.org")),
                *((b":path", path), (b"x-name", b"value"), (b"max-forwards", b"3")),
            ]
        )

    def check(self, path: bytes) -> bool:
        """Compare the results for a path; return whether `with_path` has one."""
        result = self.interpreter.with_path(self.interpret(b"/"), path)
        if result is None:
            return False
        self.assertEqual(result, self.interpret(path))
        return True

    @given(st.binary(max_size=20), st.booleans())
    def test_arbitrary_paths(self, path: bytes, with_slash: bool) -> None:
        """A path is valid in both or, at most, interpreted again."""
        path = b"/" + path if with_slash else path
        if self.check(path):
            return
        try:
            self.interpret(path)
        except RequestFieldsError:
            return
        # Valid in queries only, and so rare that such a request is interpreted.
        self.assertIn(b"\\", path)

    def test_every_byte(self) -> None:
        """Each byte is accepted in a path, and in a query, as HTTP/1.1 accepts it."""
        for byte in range(256):
            for path in (b"/%c" % byte, b"/a?%c" % byte):
                try:
                    self.interpret(path)
                except RequestFieldsError:
                    self.assertFalse(self.check(path), path)
                else:
                    self.assertEqual(self.check(path), byte != ord("\\"), path)

    def test_usual_path(self) -> None:
        """Path and query are replaced, and the fields are kept."""
        result = self.interpreter.with_path(self.interpret(b"/"), b"/item/1?from=list")
        assert isinstance(result, RequestHead)
        self.assertEqual(result.target, b"/item/1?from=list")
        self.assertTrue(result.forward_bytes.startswith(b"GET /item/1?from=list HTTP/1.1\r\nHost"))
        self.assertIn(b"x-name: value\r\n", result.forward_bytes)

    def test_longest_path(self) -> None:
        """The limit of the request line is the same."""
        longest = b"/" + b"a" * (MAX_REQUEST_LINE - len(b"GET / HTTP/1.1\r\n"))
        for path, accepted in ((longest[:-2], True), (longest + b"aaa", False)):
            self.assertEqual(self.check(path), accepted)
            if not accepted:
                self.assertRaises(RequestFieldsError, self.interpret, path)

    def test_other_sections(self) -> None:
        """Trailers and requests for `*` have no path that could be replaced."""
        asterisk = self.interpret(b"*", b"OPTIONS")
        self.assertIsNone(self.interpreter.with_path(asterisk, b"/"))
        self.assertIsNone(self.interpreter.with_path(TrailerSection(b""), b"/"))
