"""
Rate limiters under test: reference models, Hypothesis strategies, and a request.

A reference model remembers every admitted request and counts them again with exact
numbers. It is slow and obviously right; the limiters have to agree with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Callable

from attrs import Factory, define, frozen
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from balancebeam.core.ip import pack_address
from balancebeam.ratelimit.base import EPSILON, RateLimiter
from balancebeam.ratelimit.sliding_log import SlidingLog
from balancebeam.ratelimit.token_bucket import TokenBucket
from balancebeam.ratelimit.windows import FixedWindow, SlidingWindow

# Tests of `LimiterContract` are inherited by several classes, which Hypothesis calls
# different executors.
examples_80 = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)

# Calls of `expire` after which every shard of a table was swept at least once.
FULL_SWEEP = 64


@define
class Model:
    """
    The admitted requests of one key, in exact numbers.

    Attributes:
        requests: The limit.
        window: Its window in seconds.
        burst: The size of a token bucket.
        times: When each request was admitted, in seconds.
    """

    requests: int
    window: Fraction
    burst: int
    times: list[Fraction] = Factory(list)

    def remaining(self, now: Fraction) -> int:
        """The number of requests that are allowed now."""
        raise NotImplementedError

    def admit(self, now: Fraction) -> bool:
        """Whether a request is allowed; if so it is remembered."""
        if self.remaining(now) < 1:
            return False
        self.times.append(now)
        return True

    def count_in_window(self, index: int) -> int:
        """The number of requests in a window; windows are counted from time 0."""
        return sum(floor(time / self.window) == index for time in self.times)


class FixedWindowModel(Model):
    """At most `requests` in each window."""

    def remaining(self, now: Fraction) -> int:
        return self.requests - self.count_in_window(floor(now / self.window))


class SlidingWindowModel(Model):
    """
    The previous window counts with the share of it that is still covered.

    A request is allowed a window after the last in any case.
    """

    def remaining(self, now: Fraction) -> int:
        index = floor(now / self.window)
        weight = index + 1 - now / self.window
        used = self.count_in_window(index) + weight * self.count_in_window(index - 1)
        waited = not self.times or self.times[-1] <= now - self.window
        return max(int(waited), floor(self.requests - used))


class SlidingLogModel(Model):
    """At most `requests` in the `window` seconds before now."""

    def remaining(self, now: Fraction) -> int:
        return self.requests - sum(time > now - self.window for time in self.times)


class TokenBucketModel(Model):
    """A count of tokens that is refilled continuously up to `burst`."""

    def remaining(self, now: Fraction) -> int:
        tokens, last = Fraction(self.burst), Fraction(0)
        for time in self.times:
            tokens = min(Fraction(self.burst), tokens + (time - last) * self.rate) - 1
            last = time
        return floor(min(Fraction(self.burst), tokens + (now - last) * self.rate))

    @property
    def rate(self) -> Fraction:
        """Tokens per second."""
        return self.requests / self.window


@frozen
class Algorithm:
    """
    An algorithm with its reference model.

    Attributes:
        name: The name in the configuration.
        build: Returns a limiter; takes requests, window, burst and max_keys.
        build_model: Returns a model; takes requests, window and burst.
    """

    name: str
    build: Callable[[int, float, int, int], RateLimiter]
    build_model: Callable[[int, Fraction, int], Model]

    def __str__(self) -> str:
        return self.name


FIXED_WINDOW = Algorithm(
    "fixed-window",
    lambda requests, window, burst, max_keys: FixedWindow(requests, window, max_keys),
    FixedWindowModel,
)
SLIDING_WINDOW = Algorithm(
    "sliding-window",
    lambda requests, window, burst, max_keys: SlidingWindow(requests, window, max_keys),
    SlidingWindowModel,
)
SLIDING_LOG = Algorithm(
    "sliding-log",
    lambda requests, window, burst, max_keys: SlidingLog(requests, window, max_keys),
    SlidingLogModel,
)
TOKEN_BUCKET = Algorithm("token-bucket", TokenBucket, TokenBucketModel)

ALL_ALGORITHMS = (FIXED_WINDOW, SLIDING_WINDOW, SLIDING_LOG, TOKEN_BUCKET)


@frozen
class LimitParameters:
    """
    The numbers of a limit.

    Attributes:
        requests: The limit.
        window: Its window in seconds.
        burst: The size of a token bucket.
    """

    requests: int
    window: Fraction
    burst: int

    def limiter(self, algorithm: Algorithm, max_keys: int = 10_000) -> RateLimiter:
        """A limiter with these numbers."""
        return algorithm.build(self.requests, float(self.window), self.burst, max_keys)

    def model(self, algorithm: Algorithm) -> Model:
        """A reference model with these numbers."""
        return algorithm.build_model(self.requests, self.window, self.burst)


@frozen
class Arrival:
    """
    A request.

    Attributes:
        time: When it arrives, in exact seconds.
        key: The key under which it is counted.
    """

    time: Fraction
    key: bytes

    @property
    def now(self) -> float:
        """The time in seconds as limiters get it."""
        return float(self.time)


KEYS = (b"\x0a\0\0\1", b"\x0a\0\0\2", b"anything")

PARAMETERS = st.builds(
    LimitParameters,
    st.integers(1, 12),
    st.sampled_from([Fraction(1, 2), *map(Fraction, (1, 7, 10, 60, 64))]),
    st.integers(1, 12),
)

# Gaps are eighths of seconds, which are exact as floats, so that many requests arrive
# exactly when something expires.
_GAPS = st.sampled_from((0, 0, 0, 0, 1, 2, 3, 8, 16, 24, 40, 80, 240, 560))
# At the start of the clock, or when the machine has been up for a while.
_STARTS = st.sampled_from((0, 3, 8 * 86_411 + 5))


@st.composite
def histories(
    draw: st.DrawFn,
    gaps: st.SearchStrategy[int] = _GAPS,
    keys: Sequence[bytes] = KEYS,
    min_size: int = 0,
) -> list[Arrival]:
    """Sequences of requests; negative `gaps` are a clock that runs backwards."""
    eighths = draw(_STARTS)
    arrivals = []
    steps = st.tuples(gaps, st.sampled_from(keys))
    for gap, key in draw(st.lists(steps, min_size=min_size, max_size=40)):
        eighths = max(0, eighths + gap)
        arrivals.append(Arrival(Fraction(eighths, 8), key))
    return arrivals


def admit_in_two_steps(limiter: RateLimiter, key: bytes, now: float) -> bool:
    """`RateLimiter.admit` by `retry_after` and `acquire`."""
    if limiter.retry_after(key, now) > 0:
        return False
    limiter.acquire(key, now)
    return True


def limiter_after(
    parameters: LimitParameters, algorithm: Algorithm, history: Sequence[Arrival]
) -> RateLimiter:
    """A limiter that has processed `history`."""
    limiter = parameters.limiter(algorithm)
    for arrival in history:
        limiter.admit(arrival.key, arrival.now)
    return limiter


def admitted_times(limiter: RateLimiter, times: Sequence[float]) -> tuple[list[float], list[float]]:
    """
    Send a request of one key at each of `times`.

    Returns:
        The times of the admitted requests; and the same on a clock that stands still
        when `times` run backwards.
    """
    admitted, monotonic = [], []
    latest = 0.0
    for number, now in enumerate(times):
        latest = max(latest, now)
        admit = admit_in_two_steps if number % 2 else type(limiter).admit
        if admit(limiter, b"key", now):
            admitted.append(now)
            monotonic.append(latest)
    return admitted, monotonic


def max_within(times: Sequence[float], seconds: float) -> int:
    """The maximum of sorted `times` within any `seconds`, less their first instant."""
    return max(
        (
            sum(time > now - seconds for time in times[: number + 1])
            for number, now in enumerate(times)
        ),
        default=0,
    )


def max_in_one_window(times: Sequence[float], window: float) -> int:
    """The maximum of `times` in one of the windows that are counted from time 0."""
    return max(Counter(int((time + EPSILON) / window) for time in times).values(), default=0)


@frozen
class FakeRequest:
    """
    A request as limits see it.

    Attributes:
        client: The client's IP address as text.
        host: The value of the Host field.
        target: The request target.
        fields: Names and values of the other fields.
    """

    client: str = "192.0.2.1"
    host: bytes | None = b"localhost"
    target: bytes = b"/"
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def client_key(self) -> bytes:
        """The client's address in bytes."""
        return pack_address(self.client)

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`."""
        return [value for field, value in self.fields if field.lower() == name]
