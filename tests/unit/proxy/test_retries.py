"""Whether a failed request may be tried at another server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.protocols.http1.grammar import IDEMPOTENT_METHODS
from balancebeam.proxy.retries import RetryBudget, RetryPolicy

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
                self.assertEqual(
                    allows(method, kind, nothing_sent=True, replayable=False),
                    kind is not FailureKind.STOPPING,
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


class BudgetTests(SynchronousTestCase):
    """Retries are a share of the requests of the last ten seconds, but ten are always allowed."""

    def spend_all(self, budget: RetryBudget, requests: int) -> int:
        """How many retries are allowed now."""
        spent = 0
        while budget.allows(requests):
            budget.spend()
            spent += 1
        return spent

    def test_ten_are_always_allowed(self) -> None:
        for share in (0.0, 0.2):
            self.assertEqual(self.spend_all(RetryBudget(share), 1), 10)

    def test_a_share_of_many_requests(self) -> None:
        self.assertEqual(self.spend_all(RetryBudget(0.2), 1000), 200)
        self.assertEqual(self.spend_all(RetryBudget(0.0), 1000), 10)

    def test_what_is_long_past_counts_no_more(self) -> None:
        budget = RetryBudget(0.5)
        requests, allowed = 0, []
        for second in range(1, 40):
            if second <= 20:
                requests += 10
            allowed.append(self.spend_all(budget, requests))
            budget.record(float(second), requests)
        # 5 of 10 a second, after the 10 that there are always.
        self.assertEqual(sum(allowed[:20]), 100)
        self.assertEqual(sum(allowed[30:]), 10)

    def test_never_more_than_the_share_in_ten_seconds(self) -> None:
        budget = RetryBudget(0.2)
        requests, spent = 0, [0]
        for second in range(100):
            requests += 100 if second % 7 else 400
            spent.append(spent[-1] + self.spend_all(budget, requests))
            budget.record(float(second + 1), requests)
        for start in range(90):
            self.assertLessEqual(spent[start + 10] - spent[start], 0.2 * 10 * 400)
        self.assertLessEqual(abs(spent[-1] - 0.2 * requests), 0.2 * 400)
