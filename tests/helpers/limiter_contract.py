"""
The contract of every rate limiter that has a window.

The test file of an algorithm inherits `LimiterContract`, names the algorithm and adds
the promise that only this algorithm makes. Import this module, not the class:
test loaders collect every test class that they find in a test module.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.ratelimit.limit import Rejection
from balancebeam.ratelimit.sharded_table import SHARD_COUNT
from tests.helpers.limiters import (
    KEYS,
    PARAMETERS,
    TOKEN_BUCKET,
    Algorithm,
    Arrival,
    LimitParameters,
    admit_in_two_steps,
    examples_80,
    histories,
    limiter_after,
)

# Tenths are not exact as floats.
_TIMES = st.lists(
    st.one_of(st.floats(0.0, 50.0), st.integers(0, 500).map(lambda tenths: tenths / 10)),
    max_size=60,
).map(sorted)
# Sometimes backwards.
_STEPS = st.lists(st.sampled_from((0, 0, 0, 1, 2, 9, 31, -1, -2, -11)), max_size=60)
_WINDOWS = st.sampled_from((1.0, 0.3, 7.0, 10.0))


class LimiterContract(SynchronousTestCase):
    """
    The limiter agrees with its model, keeps its promise, and Retry-After is true.

    Attributes:
        algorithm: The algorithm under test.
    """

    algorithm: Algorithm

    @abstractmethod
    def check_promise(
        self, requests: int, window: float, burst: int, times: Sequence[float]
    ) -> None:
        """Send requests at `times` and check that no more are admitted than promised."""

    # Agreement with the reference model.

    @examples_80
    @given(PARAMETERS, histories())
    def test_model_admits_the_same_requests(
        self, parameters: LimitParameters, history: list[Arrival]
    ) -> None:
        """`admit`, `remaining` and the two-step form agree with the reference model."""
        limiter, two_step = parameters.limiter(self.algorithm), parameters.limiter(self.algorithm)
        models = {key: parameters.model(self.algorithm) for key in KEYS}
        for arrival in history:
            key, now = arrival.key, arrival.now
            self.assertEqual(limiter.remaining(key, now), models[key].remaining(arrival.time))
            expected = models[key].admit(arrival.time)
            self.assertEqual(limiter.admit(key, now), expected)
            self.assertEqual(admit_in_two_steps(two_step, key, now), expected)

    @examples_80
    @given(PARAMETERS, histories())
    def test_remaining_requests_are_admitted(
        self, parameters: LimitParameters, history: list[Arrival]
    ) -> None:
        """Exactly as many requests are admitted at once as `remaining` reports."""
        now = float(history[-1].time + 1) if history else 7.0
        limiter = limiter_after(parameters, self.algorithm, history)
        for key in (*KEYS, b"never seen"):
            remaining = limiter.remaining(key, now)
            verdicts = [limiter.admit(key, now) for _ in range(remaining + 2)]
            self.assertEqual(verdicts, [True] * remaining + [False] * 2)
            self.assertEqual(limiter.remaining(key, now), 0)

    @examples_80
    @given(PARAMETERS, histories(), st.integers(0, 90))
    def test_peek_agrees_and_changes_nothing(
        self, parameters: LimitParameters, history: list[Arrival], later: int
    ) -> None:
        """`peek` returns `remaining` and `retry_after`, and leaves the state as it was."""
        limiter = limiter_after(parameters, self.algorithm, history)
        now = float(history[-1].time) + later / 4 if history else 7.0
        for key in (*KEYS, b"never seen"):
            before = pickle.dumps(limiter)
            budget = limiter.peek(key, now)
            self.assertEqual(budget, limiter.peek(key, now))
            self.assertEqual(pickle.dumps(limiter), before)
            self.assertEqual(budget.remaining, limiter.remaining(key, now))
            self.assertEqual(budget.retry_after, limiter.retry_after(key, now))

    @examples_80
    @given(PARAMETERS, st.floats(0.0, 1e6), st.integers(0, 40))
    def test_rejected_requests_are_not_counted(
        self, parameters: LimitParameters, now: float, rejected: int
    ) -> None:
        """Rejected requests do not extend the wait."""
        limiter, reference = parameters.limiter(self.algorithm), parameters.limiter(self.algorithm)
        for exhausted in (limiter, reference):
            while exhausted.admit(KEYS[0], now):
                pass
        for _ in range(rejected):
            limiter.admit(KEYS[0], now)
            admit_in_two_steps(limiter, KEYS[0], now)
        self.assertEqual(limiter.retry_after(KEYS[0], now), reference.retry_after(KEYS[0], now))

    @examples_80
    @given(PARAMETERS, st.floats(0.0, 1e6))
    def test_new_key_has_the_whole_limit(self, parameters: LimitParameters, now: float) -> None:
        """A new key may send `requests` (or `burst`) requests at once."""
        limiter = parameters.limiter(self.algorithm)
        whole = parameters.burst if self.algorithm is TOKEN_BUCKET else parameters.requests
        self.assertEqual(limiter.remaining(KEYS[0], now), whole)
        verdicts = [limiter.admit(KEYS[0], now) for _ in range(whole + 1)]
        self.assertEqual(verdicts, [True] * whole + [False])

    # The promise of the algorithm.

    @examples_80
    @given(st.integers(1, 9), _WINDOWS, st.integers(1, 9), _TIMES)
    def test_promise_at_any_times(
        self, requests: int, window: float, burst: int, times: list[float]
    ) -> None:
        """The promise holds for requests at any times."""
        self.check_promise(requests, window, burst, times)

    @examples_80
    @given(st.integers(1, 9), _WINDOWS, st.integers(1, 9), _STEPS)
    def test_promise_when_the_clock_runs_backwards(
        self, requests: int, window: float, burst: int, steps: list[int]
    ) -> None:
        """The promise holds even if the clock runs backwards."""
        times, now = [], 30.0
        for step in steps:
            now += step / 10
            times.append(now)
        self.check_promise(requests, window, burst, times)

    @examples_80
    @given(PARAMETERS, histories(st.sampled_from((0, 0, 1, 4, 16, 80, -1, -8, -40))))
    def test_methods_agree_when_the_clock_runs_backwards(
        self, parameters: LimitParameters, history: list[Arrival]
    ) -> None:
        """`retry_after`, `remaining` and `admit` agree for several keys at any time."""
        limiter = parameters.limiter(self.algorithm, SHARD_COUNT)
        for number, arrival in enumerate(history):
            allowed = limiter.retry_after(arrival.key, arrival.now) == 0
            self.assertEqual(limiter.remaining(arrival.key, arrival.now) > 0, allowed)
            self.assertEqual(limiter.admit(arrival.key, arrival.now), allowed)
            if number % 5 == 0:
                limiter.expire(arrival.now)

    def test_rounding_never_admits_a_burst(self) -> None:
        """Where floats are rounded and a window nearly ends, at most one request passes."""
        times = [0.3, 60.3, 34.2, 30.0 + 0.2 + 0.9 + 3.1]
        times += [tenths / 10 for tenths in range(1, 700, 7)]
        for now in times:
            for before in (0.0, 60.0):
                limiter = self.algorithm.build(1, before or 0.3, 1, SHARD_COUNT)
                limiter.admit(b"key", max(0.0, now - before))
                admitted = sum(admit_in_two_steps(limiter, b"key", now) for _ in range(9))
                self.assertLessEqual(admitted, 1, msg=str(now))

    def test_evenly_spaced_requests_get_the_rate(self) -> None:
        """Of requests that arrive evenly, about `requests` per window are admitted."""
        limiter = self.algorithm.build(10, 10.0, 10, 10_000)
        admitted = sum(limiter.admit(b"key", step / 8) for step in range(8 * 400))
        self.assertTrue(360 <= admitted <= 410, msg=str(admitted))

    # Retry-After.

    def check_retry_after(
        self, parameters: LimitParameters, history: Sequence[Arrival], request: Arrival
    ) -> None:
        """A client that waits for Retry-After is admitted, and not much sooner."""
        key, now = request.key, request.now
        limiter = limiter_after(parameters, self.algorithm, history)
        wait = limiter.retry_after(key, now)
        if limiter.admit(key, now):
            self.assertEqual(wait, 0.0)
            return
        self.assertGreater(wait, 0.0)
        for seconds in (
            Rejection(429, "", wait).retry_after,
            wait + 1e-6,
            wait + parameters.window,
        ):
            limiter = limiter_after(parameters, self.algorithm, history)
            # Requests of other keys have no influence.
            limiter.admit(b"another", now + wait / 2)
            self.assertEqual(limiter.retry_after(key, now + float(seconds)), 0.0, msg=str(wait))
            self.assertTrue(limiter.admit(key, now + float(seconds)), msg=str(wait))
        if wait > 0.01:
            for part in (0.5, 1.0):
                limiter = limiter_after(parameters, self.algorithm, history)
                too_early = now + part * (wait - 0.001)
                self.assertGreater(limiter.retry_after(key, too_early), 0.0, msg=str(wait))
                self.assertFalse(limiter.admit(key, too_early), msg=str(wait))

    @examples_80
    @given(PARAMETERS, histories(keys=KEYS[:2], min_size=1))
    def test_retry_after_any_history(
        self, parameters: LimitParameters, history: list[Arrival]
    ) -> None:
        """Retry-After is true after any requests."""
        self.check_retry_after(parameters, history, history[-1])

    @examples_80
    @given(PARAMETERS, histories(keys=KEYS[:1]), st.integers(0, 100))
    def test_retry_after_a_burst(
        self, parameters: LimitParameters, history: list[Arrival], later: int
    ) -> None:
        """Retry-After is true some time after a burst."""
        burst = Arrival(history[-1].time + 1 if history else Fraction(3), KEYS[0])
        request = Arrival(burst.time + Fraction(later, 8), KEYS[0])
        self.check_retry_after(parameters, [*history, *(burst,) * 12], request)

    @examples_80
    @given(PARAMETERS, _TIMES, st.floats(0.0, 1.0))
    def test_wait_of_one_window(
        self, parameters: LimitParameters, times: list[float], retry_at: float
    ) -> None:
        """
        A window after the request that used up the limit, a request is admitted.

        Requests rejected meanwhile change nothing, and no wait exceeds the window.
        """
        window = float(parameters.window)
        limiter = self.algorithm.build(parameters.requests, window, parameters.requests, 10_000)
        for now in times:
            limiter.admit(KEYS[0], now)
        now = times[-1] if times else 17.3
        while limiter.admit(KEYS[0], now):
            pass
        times_of_retries = [now, now + retry_at * window * 0.99]
        for retry in times_of_retries:
            self.assertLessEqual(limiter.retry_after(KEYS[0], retry), window)
            if limiter.retry_after(KEYS[0], retry) > 0:
                self.assertFalse(limiter.admit(KEYS[0], retry))
        self.assertTrue(limiter.admit(KEYS[0], now + window))

    def test_retry_after_a_burst_at_whole_seconds(self) -> None:
        """Retry-After is true after bursts at the start, in the middle and at the end."""
        for requests in (1, 2, 3, 7, 10, 60):
            parameters = LimitParameters(requests, Fraction(60), requests)
            for second in (0, 1, 29, 59, 60, 97, 3_601):
                request = Arrival(Fraction(second), KEYS[0])
                self.check_retry_after(parameters, [request] * requests, request)

    @examples_80
    @given(PARAMETERS, st.lists(st.integers(0, 900), min_size=1, max_size=15))
    def test_retry_after_tenths_of_seconds(
        self, parameters: LimitParameters, tenths: list[int]
    ) -> None:
        """Times that are not exact as floats never make a client retry in vain."""
        history = [Arrival(Fraction(tenth, 10), KEYS[0]) for tenth in sorted(tenths)]
        self.check_retry_after(parameters, history, history[-1])

    def test_retry_after_a_rounded_sum(self) -> None:
        """A sum of tenths that is rounded never makes a client retry in vain."""
        parameters = LimitParameters(1, Fraction(60), 1)
        first, request = Arrival(Fraction(3, 10), KEYS[0]), Arrival(Fraction(503, 10), KEYS[0])
        self.check_retry_after(parameters, [first], request)
