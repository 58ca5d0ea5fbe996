"""Concurrency limits."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.ratelimit.concurrency import Concurrent
from balancebeam.ratelimit.limit import Rejection
from tests.helpers.limiters import KEYS, admit_in_two_steps, examples_80


class ConcurrentTests(SynchronousTestCase):
    """At most so many requests in flight per key."""

    @examples_80
    @given(
        st.integers(1, 4),
        st.lists(
            st.tuples(st.sampled_from(("admit", "two steps", "release")), st.sampled_from(KEYS))
        ),
    )
    def test_never_more_in_flight(self, requests: int, steps: list[tuple[str, bytes]]) -> None:
        """A request is admitted if fewer than the limit are in flight; no key is leaked."""
        limiter, in_flight = Concurrent(requests), Counter[bytes]()
        for step, key in steps:
            self.assertEqual(limiter.remaining(key, 0.0), requests - in_flight[key])
            self.assertEqual(limiter.retry_after(key, 0.0) <= 0, in_flight[key] < requests)
            if step == "release":
                if in_flight[key]:
                    limiter.release(key)
                    in_flight[key] -= 1
            else:
                admit = admit_in_two_steps if step == "two steps" else Concurrent.admit
                self.assertEqual(admit(limiter, key, 0.0), in_flight[key] < requests)
                in_flight[key] = min(requests, in_flight[key] + 1)
            self.assertEqual(len(limiter), sum(count > 0 for count in in_flight.values()))
            limiter.expire(0.0)
        for key in in_flight.elements():
            limiter.release(key)
        self.assertEqual(len(limiter), 0)

    def test_retry_after_is_an_estimate(self) -> None:
        """Retry-After is 1 second, because the end of a request is unknown."""
        limiter = Concurrent(1)
        limiter.acquire(b"key", 0.0)
        self.assertEqual(Rejection(429, "", limiter.retry_after(b"key", 9.0)).retry_after, 1)
