"""The wording of failed active health checks."""

from __future__ import annotations

import errno

from twisted.internet import defer, error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from balancebeam.upstream.health.check_failures import check_failure_reason
from balancebeam.upstream.health.errors import Unhealthy


class CheckFailureTests(SynchronousTestCase):
    """A check and a request that fail in the same way have the same text."""

    def reason(self, exception: Exception) -> str:
        """The text for an exception of a probe with a time limit of 2 s."""
        return check_failure_reason(Failure(exception), 2.0)

    def test_connect_failures(self) -> None:
        """Failures to connect have the operating system's text, as with requests."""
        refused = error.ConnectionRefusedError(errno.ECONNREFUSED, "x")
        refused.osError = errno.ECONNREFUSED
        self.assertEqual(self.reason(refused), "could not be reached: Connection refused")
        self.assertIn("did not accept a connection in time", self.reason(error.TimeoutError()))

    def test_failures_of_a_connection(self) -> None:
        """Closed, reset and late connections differ from malformed responses."""
        for exception, text in (
            (error.ConnectionDone(), "closed the connection"),
            (error.ConnectionLost(), "reset the connection"),
            (ValueError("no status", b"x"), "sent an invalid HTTP response: no status"),
            (defer.CancelledError(), "did not respond in time: health check timed out after 2 s"),
        ):
            for wrapper in (ResponseNeverReceived, ResponseFailed):
                self.assertEqual(self.reason(wrapper([Failure(exception)])), text)
        self.assertIn("did not respond in time", self.reason(defer.TimeoutError()))

    def test_other_failures(self) -> None:
        """An unexpected status or exception is described by its own text."""
        self.assertEqual(self.reason(Unhealthy("status 503")), "status 503")
        self.assertEqual(self.reason(ZeroDivisionError()), "ZeroDivisionError")
