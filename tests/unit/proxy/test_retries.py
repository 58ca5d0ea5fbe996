"""The retry policy and the retry budget."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.failures import TIMEOUTS, FailureKind, UpstreamFailure
from balancebeam.protocols.http1.grammar import IDEMPOTENT_METHODS
from balancebeam.proxy.retries import RetryBudget, RetryPolicy

UNSAFE = (b"POST", b"PATCH", b"CONNECT", b"LOCK", b"get", b"Put", b"")


def allows(
    method: bytes, kind: FailureKind, nothing_sent: bool = False, replayable: bool = True
) -> bool:
    """Whether the policy allows a retry after one failure."""
    failure = UpstreamFailure(kind, "detail", nothing_sent)
    return RetryPolicy().allows(method, failure, replayable)


class RetryTests(SynchronousTestCase):
    """RFC 9110, 9.2.2: only idempotent requests are retried automatically."""

    def test_idempotent_methods(self) -> None:
        """The idempotent methods are as in RFC 9110."""
        self.assertEqual(
            IDEMPOTENT_METHODS, {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}
        )

    def test_unsent_requests_are_always_retried(self) -> None:
        """A request of which nothing was sent is retried, unless the balancer cannot connect."""
        for method in (*IDEMPOTENT_METHODS, *UNSAFE):
            for kind in set(FailureKind) - {FailureKind.REFUSED}:
                self.assertEqual(
                    allows(method, kind, nothing_sent=True, replayable=False),
                    kind
                    not in (
                        *(FailureKind.STOPPING, FailureKind.NO_DESCRIPTORS),
                        *(FailureKind.NO_UPGRADE, FailureKind.DEADLINE),
                    ),
                    msg=f"{method!r} {kind}",
                )

    def test_refused_requests_are_always_retried(self) -> None:
        """A request that was not processed is retried whatever `on` has, if it is buffered."""
        refused = UpstreamFailure(FailureKind.REFUSED, "", nothing_sent=True)
        for method in (*IDEMPOTENT_METHODS, *UNSAFE):
            self.assertTrue(RetryPolicy(on=()).allows(method, refused, True))
            self.assertFalse(RetryPolicy().allows(method, refused, False))

    def test_idempotent_requests_are_retried(self) -> None:
        """An idempotent request is retried if the connection failed."""
        for method in sorted(IDEMPOTENT_METHODS):
            for kind in (FailureKind.CLOSED, FailureKind.STALE, FailureKind.MALFORMED):
                self.assertTrue(allows(method, kind), msg=f"{method!r} {kind}")

    def test_other_requests_are_not_retried(self) -> None:
        """A request that is not idempotent is not retried."""
        for method in UNSAFE:
            for kind in set(FailureKind) - {FailureKind.REFUSED}:
                self.assertFalse(allows(method, kind), msg=f"{method!r} {kind}")

    def test_timeouts_are_not_retried(self) -> None:
        """A request whose response timed out is not retried."""
        for method in sorted(IDEMPOTENT_METHODS):
            self.assertFalse(allows(method, FailureKind.TIMEOUT), msg=repr(method))

    def test_conditions_select_what_is_retried(self) -> None:
        """`on` selects failures to connect, cut connections and timeouts independently."""
        failures = {
            "connect": UpstreamFailure(FailureKind.UNREACHABLE, "", nothing_sent=True),
            "cut": UpstreamFailure(FailureKind.CLOSED, ""),
            "timeout": UpstreamFailure(FailureKind.TIMEOUT, ""),
        }
        for on in ((), ("connect",), ("cut",), ("timeout",), ("connect", "cut", "timeout")):
            policy = RetryPolicy(on=on)
            for condition, failure in failures.items():
                allowed = policy.allows(b"GET", failure, True)
                self.assertEqual(allowed, condition in on, f"{on} {condition}")
            for failure in (failures["cut"], failures["timeout"]):
                self.assertFalse(policy.allows(b"POST", failure, True))
                self.assertFalse(policy.allows(b"PUT", failure, False))
            stale = UpstreamFailure(FailureKind.STALE, "")
            self.assertTrue(policy.allows(b"GET", stale, True))
            self.assertFalse(policy.allows(b"POST", stale, True))

    def test_body_must_be_buffered(self) -> None:
        """A request whose body is not buffered is not retried."""
        for kind in FailureKind:
            self.assertFalse(allows(b"PUT", kind, replayable=False), msg=str(kind))

    def test_default_attempts(self) -> None:
        """Three servers are tried by default."""
        self.assertEqual(RetryPolicy().attempts, 3)

    def test_status_of_a_failure(self) -> None:
        """The status is 504 for timeouts, and 502 for most other failures."""
        others = {
            FailureKind.NO_DESCRIPTORS: 503,
            FailureKind.REFUSED: 503,
            FailureKind.NO_UPGRADE: 501,
        }
        for kind, status in others.items():
            self.assertEqual(UpstreamFailure(kind, "").status, status)
        for kind in set(FailureKind) - set(others):
            late = kind in TIMEOUTS
            self.assertEqual(UpstreamFailure(kind, "").status, 504 if late else 502, msg=str(kind))


class BudgetTests(SynchronousTestCase):
    """A share of the requests of the last ten seconds, and at least ten retries."""

    def spend_all(self, budget: RetryBudget, requests: int) -> int:
        """Spend retries until none is allowed; return how many were."""
        spent = 0
        while budget.allows(requests):
            budget.spend()
            spent += 1
        return spent

    def test_minimum(self) -> None:
        """Ten retries are allowed however few requests there are."""
        for ratio in (0.0, 0.2):
            self.assertEqual(self.spend_all(RetryBudget(ratio), 1), 10)

    def test_ratio(self) -> None:
        """The retries are a share of the requests, if that is more than the minimum."""
        self.assertEqual(self.spend_all(RetryBudget(0.2), 1000), 200)
        self.assertEqual(self.spend_all(RetryBudget(0.0), 1000), 10)

    def test_window(self) -> None:
        """Requests and retries count for ten seconds."""
        budget = RetryBudget(0.5)
        requests, allowed = 0, []
        for second in range(1, 40):
            if second <= 20:
                requests += 10
            allowed.append(self.spend_all(budget, requests))
            budget.record(float(second), requests)
        # Half of 10 requests per second, and afterwards the minimum of 10.
        self.assertEqual(sum(allowed[:20]), 100)
        self.assertEqual(sum(allowed[30:]), 10)

    def test_any_window(self) -> None:
        """In any ten seconds, the retries do not exceed their share of the requests."""
        budget = RetryBudget(0.2)
        requests, spent = 0, [0]
        for second in range(100):
            requests += 100 if second % 7 else 400
            spent.append(spent[-1] + self.spend_all(budget, requests))
            budget.record(float(second + 1), requests)
        for start in range(90):
            self.assertLessEqual(spent[start + 10] - spent[start], 0.2 * 10 * 400)
        self.assertLessEqual(abs(spent[-1] - 0.2 * requests), 0.2 * 400)
