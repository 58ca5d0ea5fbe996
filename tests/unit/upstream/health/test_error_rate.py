"""Error rates: the sliding window of responses, and the policy for outliers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.upstream.health.error_rate import ErrorRatePolicy, ErrorRateWindow


class ErrorRateWindowTests(SynchronousTestCase):
    """Responses and errors are counted over a sliding window."""

    def test_window_slides(self) -> None:
        """Counts older than the window expire; `clear` removes all."""
        counts = ErrorRateWindow(10.0)
        for now in range(20):
            counts.add(now < 10, float(now))
            counts.add(False, float(now))
            expected = range(max(0, now - 9), now + 1)
            self.assertEqual(counts.responses, 2 * len(expected))
            self.assertEqual(counts.errors, sum(then < 10 for then in expected))
        counts.add(True, 1000.0)
        self.assertEqual((counts.responses, counts.errors), (1, 1))
        counts.clear()
        self.assertEqual((counts.responses, counts.errors), (0, 0))


class ErrorRatePolicyTests(SynchronousTestCase):
    """A server with too many errors is an outlier; only some outliers are ejected."""

    def test_ratio_applies_from_min_requests_on(self) -> None:
        """The ratio must be exceeded, by at least `min_requests` responses."""
        policy, counts = ErrorRatePolicy(0.5, min_requests=4), ErrorRateWindow(10.0)
        verdicts = []
        for error in (True, True, True, False, False, False, True, True):
            counts.add(error, 0.0)
            verdicts.append(policy.exceeded(counts))
        self.assertEqual(verdicts, [False, False, False, True, True, False, True, True])

    def test_share_of_ejected_servers_is_limited(self) -> None:
        """At most `max_ejected_ratio` of the servers may be ejected, but always one."""
        policy = ErrorRatePolicy(0.5, max_ejected_ratio=0.5)
        for servers, most in ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)):
            allowed = [policy.can_eject(out, servers) for out in range(servers)]
            self.assertEqual(sum(allowed), most, msg=f"of {servers}")
        self.assertTrue(ErrorRatePolicy(0.5, max_ejected_ratio=0.0).can_eject(0, 10))
