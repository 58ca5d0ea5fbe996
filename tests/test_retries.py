"""Whether a failed request may be tried at another server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.http1.syntax import IDEMPOTENT_METHODS
from balancebeam.model import FailureKind, UpstreamFailure
from balancebeam.policy.retries import RetryPolicy

UNSAFE = (b"POST", b"PATCH", b"CONNECT", b"LOCK", b"get", b"Put", b"")


def allows(
    method: bytes, kind: FailureKind, nothing_sent: bool = False, replayable: bool = True
) -> bool:
    """What the policy says about one failure."""
    failure = UpstreamFailure(kind, "detail", nothing_sent)
    return RetryPolicy().allows(method, failure, replayable)


class RetryTests(SynchronousTestCase):
    """RFC 9110, 9.2.2: what may have been done is done again only if that is harmless."""

    def test_the_idempotent_methods(self) -> None:
        self.assertEqual(
            IDEMPOTENT_METHODS, {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}
        )

    def test_what_never_left_may_always_be_tried_again(self) -> None:
        for method in (*IDEMPOTENT_METHODS, *UNSAFE):
            for kind in FailureKind:
                self.assertTrue(
                    allows(method, kind, nothing_sent=True, replayable=False),
                    msg=f"{method!r} {kind}",
                )

    def test_idempotent_requests_are_tried_again(self) -> None:
        for method in sorted(IDEMPOTENT_METHODS):
            for kind in (FailureKind.CLOSED, FailureKind.STALE, FailureKind.MALFORMED):
                self.assertTrue(allows(method, kind), msg=f"{method!r} {kind}")

    def test_other_requests_are_not(self) -> None:
        for method in UNSAFE:
            for kind in FailureKind:
                self.assertFalse(allows(method, kind), msg=f"{method!r} {kind}")

    def test_a_slow_server_is_not_helped_by_asking_another(self) -> None:
        for method in sorted(IDEMPOTENT_METHODS):
            self.assertFalse(allows(method, FailureKind.TIMEOUT), msg=repr(method))

    def test_a_body_that_is_gone_cannot_be_sent_again(self) -> None:
        for kind in FailureKind:
            self.assertFalse(allows(b"PUT", kind, replayable=False), msg=str(kind))

    def test_three_servers_are_tried_by_default(self) -> None:
        self.assertEqual(RetryPolicy().attempts, 3)

    def test_the_status_of_the_last_attempt(self) -> None:
        for kind in FailureKind:
            late = kind in (FailureKind.TIMEOUT, FailureKind.CONNECT_TIMEOUT)
            self.assertEqual(UpstreamFailure(kind, "").status, 504 if late else 502, msg=str(kind))
