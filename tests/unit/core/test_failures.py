"""Failures of attempts, as logs and clients see them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.failures import FailureKind, UpstreamFailure

TIMEOUT_NAMES = ("TIMEOUT", "STALLED", "CONNECT_TIMEOUT", "DEADLINE")


class UpstreamFailureTests(SynchronousTestCase):
    """Statuses and texts."""

    def test_status(self) -> None:
        """Timeouts are 504, a lack of descriptors and a refusal are 503, most others are 502."""
        for kind in FailureKind:
            expected = 504 if kind.name in TIMEOUT_NAMES else 502
            if kind in (FailureKind.NO_DESCRIPTORS, FailureKind.REFUSED):
                expected = 503
            elif kind is FailureKind.NO_UPGRADE:
                expected = 501
            self.assertEqual(UpstreamFailure(kind, "").status, expected, msg=kind.name)

    def test_public_message_hides_the_server(self) -> None:
        """The text for clients has the kind, but not the details."""
        failure = UpstreamFailure(FailureKind.CLOSED, "a detail", server="10.0.0.1:80")
        self.assertEqual(failure.text, "10.0.0.1:80 closed the connection: a detail")
        self.assertEqual(failure.reason, "closed the connection: a detail")
        self.assertEqual(failure.public_message, "the server closed the connection")
