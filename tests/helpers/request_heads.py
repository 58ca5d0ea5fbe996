"""Request heads for the tests of the request parser."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead

GET = b"GET / HTTP/1.1"
HOST = b"Host: a"


def build_head(*lines: bytes) -> bytes:
    """Join a first line and field lines to a head, each ended by CRLF."""
    return b"".join(line + b"\r\n" for line in lines)


def parse(*lines: bytes) -> RequestHead:
    """Parse one head of these lines with empty caches."""
    return RequestHeadParser().parse(build_head(*lines))


def outcome(parser: RequestHeadParser, data: bytes) -> RequestHead | int:
    """Return the parsed head, or the status with which it is rejected."""
    try:
        return parser.parse(data)
    except RequestError as error:
        return error.status


class RequestHeadTestCase(SynchronousTestCase):
    """Base of test cases for heads that are rejected."""

    def assert_rejected(self, status: int, *lines: bytes) -> None:
        """
        Check that a head of these lines is rejected with `status`.

        It is parsed several times, by a parser that has most of its lines in its caches.
        """
        data = build_head(*lines)
        parser = RequestHeadParser()
        for line in lines[1:]:
            outcome(parser, build_head(GET, HOST, line))
        for _ in range(3):
            result = outcome(parser, data)
            self.assertEqual(result, status, msg=f"{data[:200]!r} gave {result}")
