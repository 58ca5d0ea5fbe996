"""Exceptions and texts of operating system errors."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import (
    ProtocolError,
    RequestError,
    ResponseError,
    describe_os_error,
)


class ProtocolErrorTests(SynchronousTestCase):
    """Messages that violate their protocol."""

    def test_both_directions_have_one_base(self) -> None:
        """Errors of requests and of responses are protocol errors."""
        for error in (RequestError(400, "malformed"), ResponseError("malformed")):
            self.assertIsInstance(error, ProtocolError)

    def test_request_error(self) -> None:
        """A request error has the status and the text of the response."""
        error = RequestError(400, "malformed")
        self.assertEqual((error.status, error.reason), (400, "malformed"))


class DescribeOsErrorTests(SynchronousTestCase):
    """Reasons at the end of messages."""

    def test_text(self) -> None:
        """The operating system's text, or else the exception's, begins in lower case."""
        for error, text in (
            (OSError(2, "No such file or directory"), "no such file or directory"),
            (OSError("No descriptor"), "no descriptor"),
            (ValueError("Embedded null byte"), "embedded null byte"),
            (OSError(), ""),
        ):
            self.assertEqual(describe_os_error(error), text)
