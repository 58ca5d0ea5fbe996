"""How many requests a key may make, and what is a key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import permutations
from math import floor
from typing import Callable

from attrs import Factory, define, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.ip import pack_address
from balancebeam.core.settings import LimitSettings
from balancebeam.core.uri import has_prefix
from balancebeam.ratelimit.base import EPSILON, RateLimiter
from balancebeam.ratelimit.concurrency import Concurrent
from balancebeam.ratelimit.keys import build_key_function
from balancebeam.ratelimit.limit import ALGORITHMS, Limit, LimitSet, Rejection, build_limit
from balancebeam.ratelimit.sharded_table import SHARD_COUNT
from balancebeam.ratelimit.sliding_log import SlidingLog
from balancebeam.ratelimit.token_bucket import TokenBucket
from balancebeam.ratelimit.windows import FixedWindow, SlidingWindow

often = settings(max_examples=80, deadline=None)

# Calls of `expire` after which every part of a table had its turn.
A_ROUND = 64


# What limiters ought to do, by remembering everything and counting it again.


@define
class Model:
    """Knows when each request was that one key was allowed; in exact numbers."""

    requests: int
    per: Fraction
    burst: int
    times: list[Fraction] = Factory(list)

    def room(self, now: Fraction) -> int:
        """How many more are allowed."""
        raise NotImplementedError

    def admit(self, now: Fraction) -> bool:
        """Whether one more is allowed; if so it is remembered."""
        if self.room(now) < 1:
            return False
        self.times.append(now)
        return True

    def in_window(self, number: int) -> int:
        """How many there were in one of the windows into which all time is divided."""
        return sum(floor(then / self.per) == number for then in self.times)


class FixedModel(Model):
    """So many in each window."""

    def room(self, now: Fraction) -> int:
        return self.requests - self.in_window(floor(now / self.per))


class SlidingModel(Model):
    """Those of the window before count for the part of it that is still covered."""

    def room(self, now: Fraction) -> int:
        window = floor(now / self.per)
        covered = window + 1 - now / self.per
        used = self.in_window(window) + covered * self.in_window(window - 1)
        return max(0, floor(self.requests - used))


class LogModel(Model):
    """So many in the time before now."""

    def room(self, now: Fraction) -> int:
        return self.requests - sum(then > now - self.per for then in self.times)


class BucketModel(Model):
    """A bucket is filled drop by drop, and flows over."""

    def room(self, now: Fraction) -> int:
        tokens, last = Fraction(self.burst), Fraction(0)
        for then in self.times:
            tokens = min(Fraction(self.burst), tokens + (then - last) * self.rate) - 1
            last = then
        return floor(min(Fraction(self.burst), tokens + (now - last) * self.rate))

    @property
    def rate(self) -> Fraction:
        return self.requests / self.per


@frozen
class Kind:
    """A limiter and its model."""

    name: str
    make: Callable[[int, float, int, int], RateLimiter]
    model: Callable[[int, Fraction, int], Model]

    def __str__(self) -> str:
        return self.name


KINDS = (
    Kind(
        "fixed-window",
        lambda requests, per, burst, most: FixedWindow(requests, per, most),
        FixedModel,
    ),
    Kind(
        "sliding-window",
        lambda requests, per, burst, most: SlidingWindow(requests, per, most),
        SlidingModel,
    ),
    Kind(
        "sliding-log",
        lambda requests, per, burst, most: SlidingLog(requests, per, most),
        LogModel,
    ),
    Kind("token-bucket", TokenBucket, BucketModel),
)


@frozen
class Rule:
    """The numbers of a limit."""

    requests: int
    per: Fraction
    burst: int

    def limiter(self, kind: Kind, most: int = 10_000) -> RateLimiter:
        return kind.make(self.requests, float(self.per), self.burst, most)

    def model(self, kind: Kind) -> Model:
        return kind.model(self.requests, self.per, self.burst)


@frozen
class Arrival:
    """A request: at which moment, in exact seconds, and under which key."""

    time: Fraction
    key: bytes

    @property
    def now(self) -> float:
        return float(self.time)


KEYS = (b"\x0a\0\0\1", b"\x0a\0\0\2", b"anything")

RULES = st.builds(
    Rule,
    st.integers(1, 12),
    st.sampled_from([Fraction(1, 2), *map(Fraction, (1, 7, 10, 60, 64))]),
    st.integers(1, 12),
)

# Gaps are eighths of seconds, which are exact as floats, so that many
# requests come at the very moment when something is over.
_GAPS = st.sampled_from((0, 0, 0, 0, 1, 2, 3, 8, 16, 24, 40, 80, 240, 560))
# From the beginning, or on a machine that has been up for a while.
_BEGINNINGS = st.sampled_from((0, 3, 8 * 86_411 + 5))


@st.composite
def histories(
    draw: st.DrawFn,
    gaps: st.SearchStrategy[int] = _GAPS,
    keys: Sequence[bytes] = KEYS,
    least: int = 0,
) -> list[Arrival]:
    """Requests, one after the other."""
    eighths = draw(_BEGINNINGS)
    arrivals = []
    steps = st.tuples(gaps, st.sampled_from(keys))
    for gap, key in draw(st.lists(steps, min_size=least, max_size=40)):
        eighths = max(0, eighths + gap)
        arrivals.append(Arrival(Fraction(eighths, 8), key))
    return arrivals


def ask_first(limiter: RateLimiter, key: bytes, now: float) -> bool:
    """As `RateLimiter.admit`, the long way."""
    if limiter.retry_after(key, now) > 0:
        return False
    limiter.acquire(key, now)
    return True


def after(rule: Rule, kind: Kind, history: Sequence[Arrival]) -> RateLimiter:
    """A limiter that has seen it all."""
    limiter = rule.limiter(kind)
    for arrival in history:
        limiter.admit(arrival.key, arrival.now)
    return limiter


def most_at_once(times: Sequence[float], per: float) -> int:
    """The most of `times`, in order, within `per` seconds without their first instant."""
    return max(
        (sum(then > now - per for then in times[: number + 1]) for number, now in enumerate(times)),
        default=0,
    )


def most_in_a_window(times: Sequence[float], per: float) -> int:
    """The most of `times` in one of the windows into which all time is divided."""
    return max(Counter(int((then + EPSILON) / per) for then in times).values(), default=0)


class ReferenceModelTests(SynchronousTestCase):
    """Limiters do what their models do, which remember everything."""

    @often
    @given(RULES, histories())
    def test_the_same_requests_are_allowed(self, rule: Rule, history: list[Arrival]) -> None:
        for kind in KINDS:
            limiter, other = rule.limiter(kind), rule.limiter(kind)
            models = {key: rule.model(kind) for key in KEYS}
            for arrival in history:
                key, now = arrival.key, arrival.now
                room = models[key].room(arrival.time)
                self.assertEqual(limiter.remaining(key, now), room, msg=str(kind))
                expected = models[key].admit(arrival.time)
                self.assertEqual(limiter.admit(key, now), expected, msg=str(kind))
                self.assertEqual(ask_first(other, key, now), expected, msg=str(kind))

    @often
    @given(RULES, histories())
    def test_as_many_as_remain_are_allowed(self, rule: Rule, history: list[Arrival]) -> None:
        now = float(history[-1].time + 1) if history else 7.0
        for kind in KINDS:
            limiter = after(rule, kind, history)
            for key in (*KEYS, b"never seen"):
                remaining = limiter.remaining(key, now)
                verdicts = [limiter.admit(key, now) for _ in range(remaining + 2)]
                self.assertEqual(verdicts, [True] * remaining + [False] * 2, msg=str(kind))
                self.assertEqual(limiter.remaining(key, now), 0, msg=str(kind))

    @often
    @given(RULES, st.floats(0.0, 1e6), st.integers(0, 40))
    def test_refusals_are_not_counted(self, rule: Rule, now: float, refused: int) -> None:
        for kind in KINDS:
            limiter, other = rule.limiter(kind), rule.limiter(kind)
            for one in (limiter, other):
                while one.admit(KEYS[0], now):
                    pass
            for _ in range(refused):
                limiter.admit(KEYS[0], now)
                ask_first(limiter, KEYS[0], now)
            self.assertEqual(limiter.retry_after(KEYS[0], now), other.retry_after(KEYS[0], now))

    @often
    @given(RULES, st.floats(0.0, 1e6))
    def test_all_at_once_is_the_whole_of_it(self, rule: Rule, now: float) -> None:
        for kind in KINDS:
            limiter = rule.limiter(kind)
            whole = rule.burst if kind.name == "token-bucket" else rule.requests
            self.assertEqual(limiter.remaining(KEYS[0], now), whole, msg=str(kind))
            verdicts = [limiter.admit(KEYS[0], now) for _ in range(whole + 1)]
            self.assertEqual(verdicts, [True] * whole + [False], msg=str(kind))


class InvariantTests(SynchronousTestCase):
    """What limiters promise holds at any times, even when those run backwards."""

    def allowed(
        self, limiter: RateLimiter, times: Sequence[float]
    ) -> tuple[list[float], list[float]]:
        """
        When one key was allowed to, and the same on a clock that stands still
        instead of running backwards.
        """
        allowed, moments = [], []
        latest = 0.0
        for number, now in enumerate(times):
            latest = max(latest, now)
            ask = ask_first if number % 2 else type(limiter).admit
            if ask(limiter, b"key", now):
                allowed.append(now)
                moments.append(latest)
        return allowed, moments

    # Tenths are not exact as floats.
    _TIMES = st.lists(
        st.one_of(st.floats(0.0, 50.0), st.integers(0, 500).map(lambda tenths: tenths / 10)),
        max_size=60,
    ).map(sorted)
    # Now and then somewhat back.
    _STEPS = st.lists(st.sampled_from((0, 0, 0, 1, 2, 9, 31, -1, -2, -11)), max_size=60)
    _PERS = st.sampled_from((1.0, 0.3, 7.0, 10.0))

    def check_all(self, requests: int, per: float, burst: int, times: Sequence[float]) -> None:
        """No limiter breaks its promise."""
        _, moments = self.allowed(FixedWindow(requests, per), times)
        self.assertLessEqual(most_in_a_window(moments, per), requests)
        _, moments = self.allowed(SlidingWindow(requests, per), times)
        self.assertLessEqual(most_in_a_window(moments, per), requests)
        self.assertLess(most_at_once(moments, per - 2 * EPSILON), 2 * requests)
        _, moments = self.allowed(SlidingLog(requests, per), times)
        self.assertLessEqual(most_at_once(moments, per - 2 * EPSILON), requests)
        allowed, _ = self.allowed(TokenBucket(requests, per, burst), times)
        for first, begin in enumerate(allowed):
            for last, end in enumerate(allowed[first:], start=first):
                most = burst + requests * max(0.0, end - begin) / per
                self.assertLessEqual(last - first + 1, most + 1e-5)

    @often
    @given(st.integers(1, 9), _PERS, st.integers(1, 9), _TIMES)
    def test_at_any_times(self, requests: int, per: float, burst: int, times: list[float]) -> None:
        self.check_all(requests, per, burst, times)

    @often
    @given(st.integers(1, 9), _PERS, st.integers(1, 9), _STEPS)
    def test_when_time_runs_backwards(
        self, requests: int, per: float, burst: int, steps: list[int]
    ) -> None:
        times, now = [], 30.0
        for step in steps:
            now += step / 10
            times.append(now)
        self.check_all(requests, per, burst, times)

    @often
    @given(RULES, histories(st.sampled_from((0, 0, 1, 4, 16, 80, -1, -8, -40))))
    def test_several_keys_while_time_runs_backwards(
        self, rule: Rule, history: list[Arrival]
    ) -> None:
        for kind in KINDS:
            limiter = rule.limiter(kind, SHARD_COUNT)
            for number, arrival in enumerate(history):
                allowed = limiter.retry_after(arrival.key, arrival.now) == 0
                self.assertEqual(
                    limiter.remaining(arrival.key, arrival.now) > 0, allowed, msg=str(kind)
                )
                self.assertEqual(limiter.admit(arrival.key, arrival.now), allowed, msg=str(kind))
                if number % 5 == 0:
                    limiter.expire(arrival.now)

    def test_around_the_moment_where_two_windows_meet(self) -> None:
        times = [9.9] * 10 + [10.0] * 10
        self.assertEqual(len(self.allowed(FixedWindow(10, 10.0), times)[0]), 20)
        self.assertEqual(len(self.allowed(SlidingWindow(10, 10.0), times)[0]), 10)
        # The worst that a sliding window lets happen.
        times = [9.99] * 10 + [10 + tenths / 10 for tenths in range(100)]
        self.assertEqual(len(self.allowed(SlidingWindow(10, 10.0), times)[0]), 19)
        self.assertEqual(len(self.allowed(SlidingLog(10, 10.0), times)[0]), 10)

    def test_no_moment_at_which_all_are_let_in(self) -> None:
        # At these, where floats are rounded, something is nearly over.
        moments = [0.3, 60.3, 34.2, 30.0 + 0.2 + 0.9 + 3.1]
        moments += [tenths / 10 for tenths in range(1, 700, 7)]
        for kind in KINDS:
            for now in moments:
                for before in (0.0, 60.0):
                    limiter = kind.make(1, before or 0.3, 1, SHARD_COUNT)
                    limiter.admit(b"key", max(0.0, now - before))
                    let_in = sum(ask_first(limiter, b"key", now) for _ in range(9))
                    self.assertLessEqual(let_in, 1, msg=f"{kind} at {now}")

    def test_a_log_stays_in_order(self) -> None:
        limiter = SlidingLog(2, 1.0)
        allowed, _ = self.allowed(limiter, [30.0, 28.9, 30.0, 30.0, 30.9, 31.0, 31.0, 31.0])
        self.assertEqual(allowed, [30.0, 28.9, 31.0, 31.0])

    def test_a_log_with_many_entries_that_are_over(self) -> None:
        limiter = SlidingLog(80, 10.0)
        allowed, _ = self.allowed(limiter, [step / 16 for step in range(4000)])
        self.assertEqual(most_at_once(allowed, 10.0), 80)
        self.assertEqual(len(allowed), 2000)

    def test_those_who_come_evenly_get_about_the_whole(self) -> None:
        times = [step / 8 for step in range(8 * 400)]
        for kind in KINDS:
            limiter = kind.make(10, 10.0, 10, 10_000)
            allowed = sum(limiter.admit(b"key", now) for now in times)
            self.assertTrue(360 <= allowed <= 410, msg=f"{kind}: {allowed}")


class RetryAfterTests(SynchronousTestCase):
    """A client that waits as long as it was told is let in, and not much sooner."""

    def check(self, rule: Rule, kind: Kind, history: Sequence[Arrival], asked: Arrival) -> None:
        """What the client hears at `asked` is true."""
        key, now = asked.key, asked.now
        limiter = after(rule, kind, history)
        wait = limiter.retry_after(key, now)
        if limiter.admit(key, now):
            self.assertEqual(wait, 0.0, msg=str(kind))
            return
        self.assertGreater(wait, 0.0, msg=str(kind))
        for seconds in (Rejection(429, "", wait).retry_after, wait + 1e-6, wait + rule.per):
            limiter = after(rule, kind, history)
            # What others do has nothing to do with it.
            limiter.admit(b"another", now + wait / 2)
            self.assertEqual(
                limiter.retry_after(key, now + float(seconds)), 0.0, msg=f"{kind} {wait}"
            )
            self.assertTrue(limiter.admit(key, now + float(seconds)), msg=f"{kind} {wait}")
        if wait > 0.01:
            for part in (0.5, 1.0):
                limiter = after(rule, kind, history)
                soon = now + part * (wait - 0.001)
                self.assertGreater(limiter.retry_after(key, soon), 0.0, msg=f"{kind} {wait}")
                self.assertFalse(limiter.admit(key, soon), msg=f"{kind} {wait}")

    @often
    @given(RULES, histories(keys=KEYS[:2], least=1))
    def test_after_a_while(self, rule: Rule, history: list[Arrival]) -> None:
        for kind in KINDS:
            self.check(rule, kind, history, history[-1])

    @often
    @given(RULES, histories(keys=KEYS[:1]), st.integers(0, 100))
    def test_after_a_burst(self, rule: Rule, history: list[Arrival], later: int) -> None:
        burst = Arrival(history[-1].time + 1 if history else Fraction(3), KEYS[0])
        asked = Arrival(burst.time + Fraction(later, 8), KEYS[0])
        for kind in KINDS:
            self.check(rule, kind, [*history, *(burst,) * 12], asked)

    def test_after_a_burst_at_whole_seconds(self) -> None:
        for requests in (1, 2, 3, 7, 10, 60):
            rule = Rule(requests, Fraction(60), requests)
            for second in (0, 1, 29, 59, 60, 97, 3_601):
                asked = Arrival(Fraction(second), KEYS[0])
                for kind in KINDS:
                    self.check(rule, kind, [asked] * requests, asked)

    @often
    @given(RULES, st.lists(st.integers(0, 900), min_size=1, max_size=15))
    def test_at_tenths_of_seconds(self, rule: Rule, tenths: list[int]) -> None:
        # Which are not exact as floats, but must not make a client come in vain.
        history = [Arrival(Fraction(tenth, 10), KEYS[0]) for tenth in sorted(tenths)]
        for kind in KINDS:
            self.check(rule, kind, history, history[-1])

    def test_a_sum_of_tenths_that_is_rounded(self) -> None:
        rule, first = Rule(1, Fraction(60), 1), Arrival(Fraction(3, 10), KEYS[0])
        for kind in KINDS:
            self.check(rule, kind, [first], Arrival(Fraction(503, 10), KEYS[0]))

    def test_whole_seconds(self) -> None:
        cases = {0.001: 1, 0.5: 1, 1.0: 1, 1.001: 2, 59.2: 60, 60.0: 60}
        for wait, expected in cases.items():
            self.assertEqual(Rejection(429, "", wait).retry_after, expected)


class ExpiryTests(SynchronousTestCase):
    """Tidying gives memory back, and nobody notices."""

    @often
    @given(RULES, histories(), st.lists(st.sampled_from((0, 1, 32, A_ROUND)), min_size=40))
    def test_it_changes_nothing(
        self, rule: Rule, history: list[Arrival], often_tidied: list[int]
    ) -> None:
        for kind in KINDS:
            limiter, other = rule.limiter(kind), rule.limiter(kind)
            for arrival, times in zip(history, often_tidied):
                key, now = arrival.key, arrival.now
                for _ in range(times):
                    limiter.expire(now)
                self.assertEqual(limiter.remaining(key, now), other.remaining(key, now))
                self.assertEqual(limiter.retry_after(key, now), other.retry_after(key, now))
                self.assertEqual(limiter.admit(key, now), other.admit(key, now), msg=str(kind))

    @often
    @given(RULES, histories())
    def test_nothing_is_left(self, rule: Rule, history: list[Arrival]) -> None:
        now = float(history[-1].time) if history else 0.0
        for kind in KINDS:
            limiter = after(rule, kind, history)
            self.assertEqual(len(limiter) > 0, bool(history), msg=str(kind))
            for _ in range(2):
                now += float(rule.per) * (rule.burst + 1)
                for _ in range(A_ROUND):
                    limiter.expire(now)
            self.assertEqual(len(limiter), 0, msg=str(kind))

    @often
    @given(st.integers(1, 100), st.integers(0, 30))
    def test_after_one_was_only_asked_about(self, requests: int, asked: int) -> None:
        for kind in KINDS:
            limiter = kind.make(requests, 10.0, requests, SHARD_COUNT)
            while limiter.admit(b"key", 5.0):
                pass
            for number in range(asked):
                limiter.remaining(b"key", 5.0 + number)
                limiter.retry_after(b"key", 5.0 + number)
                limiter.expire(5.0 + number)
            # Others push it out.
            for number in range(600):
                limiter.admit(b"%d" % number, 106.0)
            for _ in range(A_ROUND):
                limiter.expire(107.0)
            self.assertEqual(limiter.remaining(b"key", 107.0), requests, msg=str(kind))

    def test_a_little_at_a_time(self) -> None:
        for kind in KINDS:
            limiter = kind.make(1, 1.0, 1, 100_000)
            for number in range(10_000):
                limiter.admit(b"%d" % number, 0.5)
            lengths = []
            for _ in range(2 * A_ROUND):
                limiter.expire(3.0)
                lengths.append(len(limiter))
            self.assertGreater(lengths[0], 9000, msg=str(kind))
            self.assertEqual(lengths[-1], 0, msg=str(kind))


class FloodTests(SynchronousTestCase):
    """Any number of keys takes bounded memory, and sets nobody free."""

    LIMITED = tuple(b"limited %d" % number for number in range(20))
    IDLE = tuple(b"idle %d" % number for number in range(200))

    def flood(self, limiter: RateLimiter, keys: int, now: float, each: int = 1) -> int:
        """Requests under so many keys within a second; returns the most that were known."""
        longest = 0
        for number in range(keys):
            key, moment = number.to_bytes(4, "big"), now + number / keys
            for _ in range(each):
                limiter.admit(key, moment)
            if number % 1000 == 0:
                longest = max(longest, len(limiter))
                limiter.expire(moment)
        return max(longest, len(limiter))

    def exhaust(self, limiter: RateLimiter, keys: Sequence[bytes], now: float) -> None:
        """Let all of `keys` do as much as they may."""
        for key in keys:
            while limiter.admit(key, now):
                pass

    def allowed(self, limiter: RateLimiter, keys: Sequence[bytes], now: float) -> int:
        """How many of `keys` may do something."""
        return sum(limiter.retry_after(key, now) <= 0 or limiter.admit(key, now) for key in keys)

    def test_who_was_limited_is_still_limited(self) -> None:
        # In the flood they do not become free of themselves.
        for kind in KINDS:
            for most in (5, 7):
                limiter = kind.make(3, 64.0, 3, SHARD_COUNT * most)
                for key in self.IDLE:
                    limiter.admit(key, 9.0)
                self.exhaust(limiter, self.LIMITED, 10.0)
                longest = self.flood(limiter, 25_000, 10.0)
                self.assertLessEqual(longest, SHARD_COUNT * most, msg=str(kind))
                self.assertEqual(self.allowed(limiter, self.LIMITED, 11.0), 0, msg=str(kind))
                forgotten = sum(limiter.remaining(key, 11.0) == 3 for key in self.IDLE)
                self.assertGreater(forgotten, len(self.IDLE) // 4, msg=str(kind))

    def test_who_is_limited_by_two_windows_together(self) -> None:
        for requests, each in ((2, 1), (10, 6)):
            for most in (5, 7):
                limiter = SlidingWindow(requests, 10.0, SHARD_COUNT * most)
                self.exhaust(limiter, self.LIMITED, 9.0)
                self.exhaust(limiter, self.LIMITED, 15.0)
                self.flood(limiter, 10_000, 15.0, each)
                # By now one more is allowed, or was, but not all of them again.
                for key in self.LIMITED:
                    self.assertLessEqual(limiter.remaining(key, 16.0), 1)

    def test_a_window_that_ended_is_remembered(self) -> None:
        limiter = SlidingWindow(3, 10.0, SHARD_COUNT * 5)
        self.exhaust(limiter, self.LIMITED, 9.0)
        self.flood(limiter, 10_000, 10.0)
        self.assertEqual(self.allowed(limiter, self.LIMITED, 11.0), 0)
        # What both windows hold together is bounded too.
        self.assertLessEqual(len(limiter), 2 * SHARD_COUNT * 5)

    def test_full_of_keys_that_are_limited(self) -> None:
        for kind in KINDS:
            limiter = kind.make(1, 64.0, 1, SHARD_COUNT)
            self.flood(limiter, 10_000, 5.0)
            keys = [number.to_bytes(4, "big") for number in range(10_000)]
            known = [key for key in keys if limiter.retry_after(key, 6.0) > 0]
            self.assertEqual(len(known), SHARD_COUNT, msg=str(kind))
            self.assertEqual(len(limiter), SHARD_COUNT, msg=str(kind))
            for number in range(10_000):
                limiter.admit(b"more %d" % number, 7.0)
            self.assertEqual(len(limiter), SHARD_COUNT, msg=str(kind))
            self.assertEqual(self.allowed(limiter, known, 8.0), 0, msg=str(kind))

    def test_after_a_flood_there_is_room_again(self) -> None:
        for kind in KINDS:
            limiter = kind.make(1, 8.0, 1, SHARD_COUNT)
            self.flood(limiter, 5000, 5.0)
            for _ in range(A_ROUND):
                limiter.expire(50.0)
            self.exhaust(limiter, (b"new",), 50.0)
            self.assertGreater(limiter.retry_after(b"new", 51.0), 0.0, msg=str(kind))


class ConcurrentTests(SynchronousTestCase):
    """So many at a time."""

    @often
    @given(
        st.integers(1, 4),
        st.lists(st.tuples(st.sampled_from(("admit", "ask", "end")), st.sampled_from(KEYS))),
    )
    def test_never_more_at_once(self, most: int, steps: list[tuple[str, bytes]]) -> None:
        limiter, going_on = Concurrent(most), Counter[bytes]()
        for what, key in steps:
            self.assertEqual(limiter.remaining(key, 0.0), most - going_on[key])
            self.assertEqual(limiter.retry_after(key, 0.0) <= 0, going_on[key] < most)
            if what == "end":
                if going_on[key]:
                    limiter.release(key)
                    going_on[key] -= 1
            else:
                ask = ask_first if what == "ask" else Concurrent.admit
                self.assertEqual(ask(limiter, key, 0.0), going_on[key] < most)
                going_on[key] = min(most, going_on[key] + 1)
            self.assertEqual(len(limiter), sum(count > 0 for count in going_on.values()))
            limiter.expire(0.0)
        for key in going_on.elements():
            limiter.release(key)
        self.assertEqual(len(limiter), 0)

    def test_when_to_come_again_is_a_guess(self) -> None:
        limiter = Concurrent(1)
        limiter.acquire(b"key", 0.0)
        self.assertEqual(Rejection(429, "", limiter.retry_after(b"key", 9.0)).retry_after, 1)


# Requests, as limits see them, and what stands in their answers.


@frozen
class Request:
    """Of a request, what limits look at."""

    client: str = "192.0.2.1"
    host: bytes | None = b"localhost"
    target: bytes = b"/"
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def client_key(self) -> bytes:
        return pack_address(self.client)

    def field_values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field.lower() == name]


_ITEM = re.compile(
    r'"(?P<text>(?:[ !#-\[\]-~]|\\["\\])*)"'
    r'(?P<parameters>(?:;[a-z*][a-z0-9_\-.*]*=(?:-?[0-9]{1,15}|"[ !#-\[\]-~]*"))*)'
)


def read_list(text: str) -> list[tuple[str, dict[str, str]]]:
    """
    A list of strings with parameters, as in RFC 9651, and nothing else. Raises
    `ValueError` if it is none.
    """
    items, place = [], 0
    while True:
        match = _ITEM.match(text, place)
        if match is None:
            raise ValueError(f"no string with parameters at {place} of {text!r}")
        pairs = [
            (part.split("=", 1)[0], part.split("=", 1)[1])
            for part in match["parameters"].split(";")[1:]
        ]
        items.append((match["text"], dict(pairs)))
        place = match.end()
        if place == len(text):
            return items
        if not text.startswith(", ", place):
            raise ValueError(f"no comma at {place} of {text!r}")
        place += 2


# Such numbers that no float is rounded.
LIMIT_SETTINGS = st.builds(
    LimitSettings,
    requests=st.sampled_from((1, 2, 4)),
    window=st.sampled_from((2.0, 8.0, 64.0)),
    algorithm=st.sampled_from(ALGORITHMS),
    key=st.sampled_from((("client",), ("path:/a", "client"), ("path:/a",), ("host",))),
    dry_run=st.sampled_from((False, False, True)),
    status=st.sampled_from((429, 503)),
    message=st.sampled_from(("slow down", "too many requests")),
    name=st.sampled_from(("", "one", "two")),
)

_STEPS = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 0, 1, 4, 16, 64)),
        st.builds(
            Request,
            client=st.sampled_from(("192.0.2.1", "2001:db8::1")),
            host=st.sampled_from((b"one", b"two")),
            target=st.sampled_from((b"/", b"/a", b"/a/b?c")),
        ),
        st.booleans(),
    ),
    max_size=40,
)


@frozen
class LimitSnapshot:
    """A limit that is about a request: under which key, and what it says."""

    limit: Limit
    key: bytes
    wait: float
    remaining: int

    @property
    def refuses(self) -> bool:
        return self.remaining < 1

    @property
    def on_trial(self) -> bool:
        return self.limit.settings.dry_run


class LimitSetTests(SynchronousTestCase):
    """Several limits are asked as one."""

    def ask_each(
        self, limits: Sequence[Limit], request: Request, now: float
    ) -> list[LimitSnapshot]:
        """What each limit that is about `request` says to it."""
        asked = []
        for limit in limits:
            key = limit.key_function(request)
            if key is not None:
                limiter = limit.limiter
                asked.append(
                    LimitSnapshot(
                        limit, key, limiter.retry_after(key, now), limiter.remaining(key, now)
                    )
                )
        return asked

    def check_charged(self, asked: Sequence[LimitSnapshot], admitted: bool, now: float) -> None:
        """Each limit has counted the request if it should have."""
        for one in asked:
            counted = admitted and not one.refuses
            left = one.limit.limiter.remaining(one.key, now)
            self.assertEqual(left, one.remaining - counted, msg=one.limit.settings.algorithm)

    def check_refusal(
        self, refusal: Rejection, limits: Sequence[Limit], asked: Sequence[LimitSnapshot]
    ) -> None:
        """The strictest of those that refuse is the answer."""
        waits = [one.wait for one in asked if one.refuses and not one.on_trial]
        self.assertEqual(refusal.delay, max(waits))
        strictest = next(
            one.limit.settings
            for one in asked
            if one.refuses and not one.on_trial and one.wait == refusal.delay
        )
        self.assertEqual((refusal.status, refusal.message), (strictest.status, strictest.message))
        seconds = str(refusal.retry_after)
        self.assertEqual(read_list(refusal.limit), [(strictest.title, {"r": "0", "t": seconds})])
        titles = [limit.settings.title for limit in limits if not limit.settings.dry_run]
        self.assertEqual([title for title, _ in read_list(refusal.policy)], titles)

    @often
    @given(st.lists(LIMIT_SETTINGS, max_size=4), _STEPS)
    def test_all_or_none(
        self, several: list[LimitSettings], steps: list[tuple[int, Request, bool]]
    ) -> None:
        limits = [build_limit(one) for one in several]
        together = LimitSet(limits)
        now, held = 0.0, []
        for gap, request, release in steps:
            now += gap / 8
            asked = self.ask_each(limits, request, now)
            refused = [limit.rejected for limit in limits]
            outcome = together.admit(request, now)
            refuses = any(one.refuses and not one.on_trial for one in asked)
            self.assertEqual(isinstance(outcome, Rejection), refuses)
            if isinstance(outcome, Rejection):
                self.check_refusal(outcome, limits, asked)
            else:
                held.append(outcome)
                self.check_held(outcome, asked)
            self.check_charged(asked, not refuses, now)
            for one in asked:
                refused[limits.index(one.limit)] += one.refuses
            self.assertEqual([limit.rejected for limit in limits], refused)
            if release and held:
                self.release(held.pop(0))
        for one_held in held:
            self.release(one_held)
        for limit in limits:
            if limit.settings.algorithm == "concurrent":
                self.assertEqual(len(limit.limiter), 0)

    def release(self, held: tuple[tuple[RateLimiter, bytes], ...]) -> None:
        for limiter, key in held:
            limiter.release(key)

    def check_held(
        self, held: tuple[tuple[RateLimiter, bytes], ...], asked: Sequence[LimitSnapshot]
    ) -> None:
        """What has to be given back is what counts at once."""
        expected = [
            (one.limit.limiter, one.key)
            for one in asked
            if one.limit.settings.algorithm == "concurrent" and not one.refuses
        ]
        self.assertEqual(list(held), expected)

    def test_the_strictest_is_the_answer_in_any_order(self) -> None:
        several = [
            LimitSettings(1, per, "fixed-window", status=status, name=name)
            for per, status, name in ((8.0, 429, "a"), (64.0, 503, "b"), (32.0, 500, "c"))
        ]
        for order in permutations(several):
            together = LimitSet([build_limit(one) for one in order])
            self.assertEqual(together.admit(Request(), 1.0), ())
            refusal = together.admit(Request(), 3.0)
            assert isinstance(refusal, Rejection)
            self.assertEqual((refusal.delay, refusal.status), (61.0, 503))
            self.assertEqual(refusal.limit, '"b";r=0;t=61')

    def test_none_is_charged_for_what_another_refuses(self) -> None:
        several = [
            build_limit(LimitSettings(requests, 64.0, algorithm))
            for requests, algorithm in ((4, "concurrent"), (2, "sliding-log"), (8, "token-bucket"))
        ]
        for order in permutations(several):
            limits = [build_limit(one.settings) for one in order]
            together = LimitSet(limits)
            outcomes = [together.admit(Request(), 1.0) for _ in range(9)]
            self.assertEqual(
                [isinstance(one, Rejection) for one in outcomes], [False] * 2 + [True] * 7
            )
            key = pack_address("192.0.2.1")
            left = {one.settings.requests: one.limiter.remaining(key, 1.0) for one in limits}
            self.assertEqual(left, {4: 2, 2: 0, 8: 6})

    def test_a_limit_on_trial_refuses_nothing(self) -> None:
        limit = build_limit(LimitSettings(2, dry_run=True, algorithm="fixed-window"))
        together = LimitSet([limit])
        outcomes = [together.admit(Request(), 1.0) for _ in range(5)]
        self.assertEqual(outcomes, [()] * 5)
        self.assertEqual(limit.rejected, 3)
        self.assertEqual(limit.limiter.remaining(limit.key_function(Request()) or b"", 1.0), 0)

    def test_the_fields_of_a_refusal(self) -> None:
        limits = [
            build_limit(LimitSettings(600, name="minute", algorithm="fixed-window")),
            build_limit(LimitSettings(1, 2.5, "sliding-log", key=("client", "host"))),
            build_limit(LimitSettings(9, algorithm="concurrent", name="at once")),
            build_limit(LimitSettings(9, name="secret", dry_run=True)),
        ]
        together = LimitSet(limits)
        self.assertNotIsInstance(together.admit(Request(), 1.0), Rejection)
        refusal = together.admit(Request(), 1.25)
        assert isinstance(refusal, Rejection)
        self.assertEqual((refusal.status, refusal.message), (429, "too many requests"))
        self.assertEqual((refusal.delay, refusal.retry_after), (2.25, 3))
        self.assertEqual(refusal.limit, '"client host";r=0;t=3')
        self.assertEqual(
            refusal.policy,
            '"minute";q=600;w=60, "client host";q=1;w=3, "at once";q=9;qu="concurrent-requests"',
        )
        self.assertEqual(
            read_list(refusal.policy)[:2],
            [("minute", {"q": "600", "w": "60"}), ("client host", {"q": "1", "w": "3"})],
        )

    def test_the_checker_is_strict(self) -> None:
        for text in ("", "a;q=1", '"a";q=1.5', '"a" ;q=1', '"a";q', '"a",', '"a";Q=1', '"\x80"'):
            with self.assertRaises(ValueError, msg=text):
                read_list(text)

    def test_what_is_asked_for(self) -> None:
        kinds = {
            "fixed-window": FixedWindow,
            "sliding-window": SlidingWindow,
            "sliding-log": SlidingLog,
            "token-bucket": TokenBucket,
            "concurrent": Concurrent,
        }
        self.assertEqual(sorted(kinds), list(ALGORITHMS))
        for algorithm, kind in kinds.items():
            limit = build_limit(LimitSettings(3, algorithm=algorithm))
            self.assertIsInstance(limit.limiter, kind)
            self.assertEqual(limit.limiter.remaining(b"key", 0.0), 3)
        bucket = build_limit(LimitSettings(3, algorithm="token-bucket", burst=7))
        self.assertEqual(bucket.limiter.remaining(b"key", 0.0), 7)

    def test_what_is_no_limit(self) -> None:
        cases = {
            "give one of concurrent, fixed-window, ": LimitSettings(1, algorithm="leaky"),
            "at least 1 request": LimitSettings(0),
            "more than 0 seconds": LimitSettings(1, 0.0),
            "give client, host": LimitSettings(1, key=("clients",)),
            "at least 1": LimitSettings(1, algorithm="token-bucket", burst=0),
            "give 400 to 599": LimitSettings(1, status=200),
            "give letters and digits": LimitSettings(1, name='say "no"'),
            "is no name for a limit": LimitSettings(1, key=("path:/a\r\nb",)),
            "give 1 to 128": LimitSettings(1, ipv6_prefix=0),
        }
        for words, wrong in cases.items():
            with self.assertRaises(ValueError) as caught:
                build_limit(wrong)
            self.assertIn(words, str(caught.exception))


ADDRESSES = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    st.integers(0, 2**70).map(lambda number: IPv6Address((0x20010DB8 << 96) | number)),
)


class ClientKeyTests(SynchronousTestCase):
    """IPv4 clients one by one, IPv6 clients by their network."""

    def key(self, client: str, prefix: int = 64) -> bytes | None:
        return build_key_function(["client"], prefix)(Request(client))

    def test_cases(self) -> None:
        one = "2001:db8:1:200::1"
        self.assertEqual(self.key(one), self.key("2001:db8:1:200:ffff::9"))
        self.assertNotEqual(self.key(one), self.key("2001:db8:1:201::1"))
        self.assertNotEqual(self.key("192.0.2.1"), self.key("192.0.2.2"))
        for prefix, same, other in (
            (48, "2001:db8:1:ffff::", "2001:db8:2:200::1"),
            (56, "2001:db8:1:2ff::", "2001:db8:1:300::"),
            (57, "2001:db8:1:27f::", "2001:db8:1:280::"),
            (128, one, "2001:db8:1:200::2"),
        ):
            self.assertEqual(self.key(one, prefix), self.key(same, prefix))
            self.assertNotEqual(self.key(one, prefix), self.key(other, prefix))

    @often
    @given(ADDRESSES, ADDRESSES, st.one_of(st.integers(1, 128), st.integers(56, 64)))
    def test_the_same_key_for_the_same_network(
        self, one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, prefix: int
    ) -> None:
        networks = [
            ip_network((address, prefix if address.version == 6 else 32), strict=False)
            # IPv4 may come in the clothes of IPv6.
            for address in (getattr(plain, "ipv4_mapped", None) or plain for plain in (one, other))
        ]
        keys = [self.key(str(address), prefix) for address in (one, other)]
        self.assertEqual(keys[0] == keys[1], networks[0] == networks[1])
        self.assertLessEqual(max(len(key or b"") for key in keys), 24)

    def test_no_network_is_an_ipv4_client(self) -> None:
        client = IPv4Address("32.1.13.184")
        for prefix in range(1, 129):
            network = IPv6Address(int(client) << 96)
            self.assertNotEqual(
                self.key(str(network), prefix), self.key(str(client), prefix), msg=str(prefix)
            )

    def test_a_peer_without_an_address(self) -> None:
        self.assertEqual(self.key("unknown"), b"unknown")


class KeyTests(SynchronousTestCase):
    """What else is counted together."""

    def key(self, name: str, request: Request) -> bytes | None:
        return build_key_function([name])(request)

    def test_hosts(self) -> None:
        spellings = (b"example.com", b"EXAMPLE.com", b"Example.Com:8080", b"example.com:")
        for same in (*spellings, b"example.com.", b"example.com.:80", b"%65xample.com"):
            self.assertEqual(self.key("host", Request(host=same)), b"example.com")
        for same in (b"[2001:DB8::1]", b"[2001:db8::1]:443"):
            self.assertEqual(self.key("host", Request(host=same)), b"[2001:db8::1]")
        self.assertNotEqual(
            self.key("host", Request(host=b"example.com")),
            self.key("host", Request(host=b"example.org")),
        )
        self.assertEqual(self.key("host", Request(host=None)), b"")

    def test_fields(self) -> None:
        def key(*values: bytes, name: bytes = b"x-key", asked: str = "X-Key") -> bytes | None:
            fields = tuple((name, value) for value in values)
            return self.key("header:" + asked, Request(fields=((b"other", b"x"), *fields)))

        self.assertEqual(key(b"one"), b"one")
        self.assertEqual(key(b"one", name=b"X-KEY", asked="x-kEY"), b"one")
        self.assertEqual(key(b"one", asked="x_key"), b"one")
        different = {key(), key(b""), key(b"one"), key(b"ONE"), key(b"one", b"one"), key(b"two")}
        self.assertEqual(len(different), 6)
        # Which line counts, servers do not agree on.
        self.assertEqual(key(b"one", b"two"), key(b"two", b"three", b"four"))

    def test_fields_that_do_not_go_on(self) -> None:
        for name in ("Connection", "via", "X-Forwarded-For", "X_Forwarded_For", "Forwarded"):
            with self.assertRaises(ValueError) as caught:
                build_key_function(["header:" + name])
            self.assertIn("give another field", str(caught.exception))

    @often
    @given(st.integers(0, 2000), st.integers(0, 2000))
    def test_long_ones_are_short(self, length: int, other: int) -> None:
        names = ("host", "header:x", "path:/" + "p" * 200)
        keys = []
        for size in (length, other):
            request = Request(
                host=b"h" * size, target=b"/" + b"p" * 200, fields=((b"x", b"v" * size),)
            )
            some = [self.key(name, request) for name in names]
            some.append(build_key_function(["client", *names])(request))
            self.assertTrue(all(key is not None and len(key) <= 24 for key in some))
            keys.append(some)
        for number in (0, 1, 3):
            self.assertEqual(keys[0][number] == keys[1][number], length == other)

    @often
    @given(st.data())
    def test_no_two_combinations_look_the_same(self, data: st.DataObject) -> None:
        # Such that what divides parts is in them too.
        text = st.text("1:,a2", max_size=9).map(str.encode)
        clients = st.sampled_from(("192.0.2.1", "2001:db8::1", "49.58.97.49", "unknown"))
        names = data.draw(st.permutations(("client", "host", "header:x", "header:y", "path:/")))
        used = names[: data.draw(st.integers(2, 5))]
        maker = build_key_function(used)
        seen: dict[bytes | None, list[object]] = {}
        for _ in range(8):
            host, one, other = data.draw(text), data.draw(text), data.draw(text)
            request = Request(data.draw(clients), host, fields=((b"x", one), (b"y", other)))
            meant: dict[str, object] = {
                "client": request.client,
                "host": re.sub(rb":[0-9]*$", b"", host),
                "header:x": one,
                "header:y": other,
                "path:/": "",
            }
            parts = [meant[name] for name in used]
            self.assertEqual(seen.setdefault(maker(request), parts), parts)

    def test_parts_do_not_run_together(self) -> None:
        maker = build_key_function(["header:x", "header:y"])
        pairs = [(b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"), (b"abc", b""), (b"1:a", b"2:b")]
        pairs += [(b"1:a1:", b"b"), (b"a", b"1:b"), (b"a1", b":b"), (b"a,", b"b"), (b"a", b",b")]
        keys = {maker(Request(fields=((b"x", one), (b"y", other)))) for one, other in pairs}
        self.assertEqual(len(keys), len(pairs))

    def test_what_is_no_key(self) -> None:
        wrong = (
            "clients",
            "Client",
            "client:1",
            "host:",
            "header",
            "header:",
            "header:a b",
            "header:a:b",
            "path:",
            "path:v1",
            "",
        )
        for name in wrong:
            with self.assertRaises(ValueError) as caught:
                build_key_function(["host", name])
            self.assertIn(repr(name), str(caught.exception))
            self.assertIn("client, host, header:NAME or path:/PREFIX", str(caught.exception))
        with self.assertRaises(ValueError) as caught:
            build_key_function([])
        self.assertIn("such as client", str(caught.exception))
        for prefix in (0, -1, 129):
            with self.assertRaises(ValueError) as caught:
                build_key_function(["client"], prefix)
            self.assertIn("give 1 to 128", str(caught.exception))


class PathTests(SynchronousTestCase):
    """Which requests are below a path, however they are spelled."""

    BELOW = (
        b"/v1",
        b"/v1/",
        b"/v1/x",
        b"//v1",
        b"///v1//x",
        b"/./v1",
        b"/v1/.",
        b"/%76%31",
        b"/%76%31%2Fx",
        b"/%2fv1",
        b"/v1?x",
        b"/v1?/../..",
        b"/v1/x?y=/v2",
        b"/v2/../v1",
        b"/v2/%2e%2E/v1/x",
        b"/../v1",
        b"/../../v1/x",
        b"//%2e/%76%31//./x/..?y",
        b"/v2/..//./%761",
        b"/v1;x",
        b"/v1;x=/y/z",
        b"\\v1",
        b"/v2\\..\\v1",
        # To a server that does not resolve dots.
        b"/v1/../v2",
        b"/v1/%2e%2e/v2",
        b"/v1/..",
    )
    NOT_BELOW = (
        b"/",
        b"",
        b"*",
        b"/v10",
        b"/v1x/y",
        b"/v",
        b"/V1",
        b"/v2/v1",
        b"/v2?/v1",
        b"/v2?/../v1",
        b"/v1%30",
        b"/v1%3Fx",
        b"//v10",
        b"/v10;/v1",
        b"/v1./x",
    )

    def test_cases(self) -> None:
        maker = build_key_function(["path:/v1"])
        for target in self.BELOW:
            self.assertTrue(has_prefix(target, b"/v1"), msg=repr(target))
            self.assertEqual(maker(Request(target=target)), b"/v1")
        for target in self.NOT_BELOW:
            self.assertFalse(has_prefix(target, b"/v1"), msg=repr(target))
            self.assertIsNone(maker(Request(target=target)))

    def test_everything_is_below_the_root(self) -> None:
        for target in (*self.BELOW, *self.NOT_BELOW):
            self.assertTrue(has_prefix(target, b"/"), msg=repr(target))
            self.assertIsNotNone(build_key_function(["path:/"])(Request(target=target)))

    def test_a_prefix_may_be_spelled_differently_too(self) -> None:
        for name in ("path:/v1", "path:/v1/", "path://v1", "path:/%761", "path:/v2/../v1"):
            maker = build_key_function([name, "client"])
            self.assertIsNotNone(maker(Request(target=b"/v1/x")), msg=name)
            self.assertIsNone(maker(Request(target=b"/v10")), msg=name)
