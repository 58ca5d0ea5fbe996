"""Limits: building them, sets of limits, and the fields of a rejection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.ip import pack_address
from balancebeam.core.settings import LimitSettings
from balancebeam.ratelimit.base import RateLimiter
from balancebeam.ratelimit.concurrency import Concurrent
from balancebeam.ratelimit.limit import ALGORITHMS, Limit, LimitSet, Rejection, build_limit
from balancebeam.ratelimit.sliding_log import SlidingLog
from balancebeam.ratelimit.token_bucket import TokenBucket
from balancebeam.ratelimit.windows import FixedWindow, SlidingWindow
from tests.helpers.limiters import FakeRequest, examples_80

_ITEM = re.compile(
    r'"(?P<text>(?:[ !#-\[\]-~]|\\["\\])*)"'
    r'(?P<parameters>(?:;[a-z*][a-z0-9_\-.*]*=(?:-?[0-9]{1,15}|"[ !#-\[\]-~]*"))*)'
)


def parse_list(text: str) -> list[tuple[str, dict[str, str]]]:
    """
    Parse a list of strings with parameters (RFC 9651) as the RateLimit fields have it.

    Raises:
        ValueError: `text` is anything else.
    """
    items, position = [], 0
    while True:
        match = _ITEM.match(text, position)
        if match is None:
            raise ValueError(f"no string with parameters at {position} of {text!r}")
        pairs = [
            (part.split("=", 1)[0], part.split("=", 1)[1])
            for part in match["parameters"].split(";")[1:]
        ]
        items.append((match["text"], dict(pairs)))
        position = match.end()
        if position == len(text):
            return items
        if not text.startswith(", ", position):
            raise ValueError(f"no comma at {position} of {text!r}")
        position += 2


# Numbers that are exact as floats.
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

# The gap before each request in eighths of seconds, the request, and whether the oldest
# admitted request is finished after it.
_STEPS = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 0, 1, 4, 16, 64)),
        st.builds(
            FakeRequest,
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
    """
    The state of a limit that applies to a request, before the request is sent.

    Attributes:
        limit: The limit.
        key: The key of the request.
        wait: The result of `retry_after`.
        remaining: The result of `remaining`.
    """

    limit: Limit
    key: bytes
    wait: float
    remaining: int

    @property
    def exceeded(self) -> bool:
        """Whether the request is over the limit."""
        return self.remaining < 1

    @property
    def rejects(self) -> bool:
        """Whether the limit rejects the request."""
        return self.exceeded and not self.limit.settings.dry_run


class LimitSetTests(SynchronousTestCase):
    """A request passes all limits of a set, or is counted by none."""

    def snapshots(
        self, limits: Sequence[Limit], request: FakeRequest, now: float
    ) -> list[LimitSnapshot]:
        """The states of the limits that apply to `request`."""
        snapshots = []
        for limit in limits:
            key = limit.key_function(request)
            if key is not None:
                limiter = limit.limiter
                wait, remaining = limiter.retry_after(key, now), limiter.remaining(key, now)
                snapshots.append(LimitSnapshot(limit, key, wait, remaining))
        return snapshots

    def check_counts(self, snapshots: Sequence[LimitSnapshot], admitted: bool, now: float) -> None:
        """An admitted request is counted by each limit that it does not exceed."""
        for snapshot in snapshots:
            counted = admitted and not snapshot.exceeded
            remaining = snapshot.limit.limiter.remaining(snapshot.key, now)
            algorithm = snapshot.limit.settings.algorithm
            self.assertEqual(remaining, snapshot.remaining - counted, msg=algorithm)

    def check_rejection(
        self, rejection: Rejection, limits: Sequence[Limit], snapshots: Sequence[LimitSnapshot]
    ) -> None:
        """The rejecting limit with the longest wait decides the response."""
        waits = [snapshot.wait for snapshot in snapshots if snapshot.rejects]
        self.assertEqual(rejection.delay, max(waits))
        strictest = next(
            snapshot.limit.settings
            for snapshot in snapshots
            if snapshot.rejects and snapshot.wait == rejection.delay
        )
        self.assertEqual(
            (rejection.status, rejection.message), (strictest.status, strictest.message)
        )
        seconds = str(rejection.retry_after)
        self.assertEqual(parse_list(rejection.limit), [(strictest.title, {"r": "0", "t": seconds})])
        titles = [limit.settings.title for limit in limits if not limit.settings.dry_run]
        self.assertEqual([title for title, _ in parse_list(rejection.policy)], titles)

    def check_permits(
        self, permits: tuple[tuple[RateLimiter, bytes], ...], snapshots: Sequence[LimitSnapshot]
    ) -> None:
        """Exactly the concurrency limits have to be released."""
        expected = [
            (snapshot.limit.limiter, snapshot.key)
            for snapshot in snapshots
            if snapshot.limit.settings.algorithm == "concurrent" and not snapshot.exceeded
        ]
        self.assertEqual(list(permits), expected)

    def release(self, permits: tuple[tuple[RateLimiter, bytes], ...]) -> None:
        """Finish an admitted request."""
        for limiter, key in permits:
            limiter.release(key)

    @examples_80
    @given(st.lists(LIMIT_SETTINGS, max_size=4), _STEPS)
    def test_all_or_none(
        self, settings: list[LimitSettings], steps: list[tuple[int, FakeRequest, bool]]
    ) -> None:
        """A request is counted by all limits or, if one rejects it, by none."""
        limits = [build_limit(each) for each in settings]
        limit_set = LimitSet(limits)
        now, in_flight = 0.0, []
        for gap, request, release in steps:
            now += gap / 8
            snapshots = self.snapshots(limits, request, now)
            rejected = [limit.rejected for limit in limits]
            outcome = limit_set.admit(request, now)
            rejects = any(snapshot.rejects for snapshot in snapshots)
            self.assertEqual(isinstance(outcome, Rejection), rejects)
            if isinstance(outcome, Rejection):
                self.check_rejection(outcome, limits, snapshots)
            else:
                in_flight.append(outcome)
                self.check_permits(outcome, snapshots)
            self.check_counts(snapshots, not rejects, now)
            for snapshot in snapshots:
                rejected[limits.index(snapshot.limit)] += snapshot.exceeded
            self.assertEqual([limit.rejected for limit in limits], rejected)
            if release and in_flight:
                self.release(in_flight.pop(0))
        for permits in in_flight:
            self.release(permits)
        for limit in limits:
            if limit.settings.algorithm == "concurrent":
                self.assertEqual(len(limit.limiter), 0)

    def test_longest_wait_decides_in_any_order(self) -> None:
        """The rejecting limit with the longest wait decides, wherever it stands."""
        settings = [
            LimitSettings(1, window, "fixed-window", status=status, name=name)
            for window, status, name in ((8.0, 429, "a"), (64.0, 503, "b"), (32.0, 500, "c"))
        ]
        for order in permutations(settings):
            limit_set = LimitSet([build_limit(each) for each in order])
            self.assertEqual(limit_set.admit(FakeRequest(), 1.0), ())
            rejection = limit_set.admit(FakeRequest(), 3.0)
            assert isinstance(rejection, Rejection)
            self.assertEqual((rejection.delay, rejection.status), (61.0, 503))
            self.assertEqual(rejection.limit, '"b";r=0;t=61')

    def test_rejected_requests_are_refunded(self) -> None:
        """A request that one limit rejects is counted by no other limit, in any order."""
        settings = [
            LimitSettings(requests, 64.0, algorithm)
            for requests, algorithm in ((4, "concurrent"), (2, "sliding-log"), (8, "token-bucket"))
        ]
        for order in permutations(settings):
            limits = [build_limit(each) for each in order]
            limit_set = LimitSet(limits)
            outcomes = [limit_set.admit(FakeRequest(), 1.0) for _ in range(9)]
            self.assertEqual(
                [isinstance(outcome, Rejection) for outcome in outcomes], [False] * 2 + [True] * 7
            )
            key = pack_address("192.0.2.1")
            remaining = {
                limit.settings.requests: limit.limiter.remaining(key, 1.0) for limit in limits
            }
            self.assertEqual(remaining, {4: 2, 2: 0, 8: 6})

    def test_dry_run_rejects_nothing(self) -> None:
        """A dry-run limit admits every request, and counts what it would have rejected."""
        limit = build_limit(LimitSettings(2, dry_run=True, algorithm="fixed-window"))
        limit_set = LimitSet([limit])
        outcomes = [limit_set.admit(FakeRequest(), 1.0) for _ in range(5)]
        self.assertEqual(outcomes, [()] * 5)
        self.assertEqual(limit.rejected, 3)
        self.assertEqual(limit.limiter.remaining(limit.key_function(FakeRequest()) or b"", 1.0), 0)

    def test_fields_of_a_rejection(self) -> None:
        """RateLimit has the limit that decides, RateLimit-Policy all that are enforced."""
        limits = [
            build_limit(LimitSettings(600, name="minute", algorithm="fixed-window")),
            build_limit(LimitSettings(1, 2.5, "sliding-log", key=("client", "host"))),
            build_limit(LimitSettings(9, algorithm="concurrent", name="at once")),
            build_limit(LimitSettings(9, name="secret", dry_run=True)),
        ]
        limit_set = LimitSet(limits)
        self.assertNotIsInstance(limit_set.admit(FakeRequest(), 1.0), Rejection)
        rejection = limit_set.admit(FakeRequest(), 1.25)
        assert isinstance(rejection, Rejection)
        self.assertEqual((rejection.status, rejection.message), (429, "too many requests"))
        self.assertEqual((rejection.delay, rejection.retry_after), (2.25, 3))
        self.assertEqual(rejection.limit, '"client host";r=0;t=3')
        self.assertEqual(
            rejection.policy,
            '"minute";q=600;w=60, "client host";q=1;w=3, "at once";q=9;qu="concurrent-requests"',
        )
        self.assertEqual(
            parse_list(rejection.policy)[:2],
            [("minute", {"q": "600", "w": "60"}), ("client host", {"q": "1", "w": "3"})],
        )

    def test_list_parser_is_strict(self) -> None:
        """The parser of these tests rejects everything that RFC 9651 does not allow."""
        for text in ("", "a;q=1", '"a";q=1.5', '"a" ;q=1', '"a";q', '"a",', '"a";Q=1', '"\x80"'):
            with self.assertRaises(ValueError, msg=text):
                parse_list(text)


class RejectionTests(SynchronousTestCase):
    """The response to a request over its limit."""

    def test_retry_after_is_in_whole_seconds(self) -> None:
        """Retry-After is rounded up, and at least 1."""
        cases = {0.001: 1, 0.5: 1, 1.0: 1, 1.001: 2, 59.2: 60, 60.0: 60}
        for delay, expected in cases.items():
            self.assertEqual(Rejection(429, "", delay).retry_after, expected)


class BuildLimitTests(SynchronousTestCase):
    """Building a limit from its settings."""

    def test_algorithms(self) -> None:
        """Each algorithm has its limiter, with the numbers of the settings."""
        classes = {
            "fixed-window": FixedWindow,
            "sliding-window": SlidingWindow,
            "sliding-log": SlidingLog,
            "token-bucket": TokenBucket,
            "concurrent": Concurrent,
        }
        self.assertEqual(sorted(classes), list(ALGORITHMS))
        for algorithm, limiter_class in classes.items():
            limit = build_limit(LimitSettings(30, algorithm=algorithm))
            self.assertIsInstance(limit.limiter, limiter_class)
            self.assertEqual(limit.limiter.remaining(b"key", 0.0), 30)
        bucket = build_limit(LimitSettings(3, algorithm="token-bucket", burst=7))
        self.assertEqual(bucket.limiter.remaining(b"key", 0.0), 7)

    def test_small_sliding_windows_are_exact(self) -> None:
        """Up to ten requests per window are counted by a log, more by two counters."""
        for requests, limiter_class in ((1, SlidingLog), (10, SlidingLog), (11, SlidingWindow)):
            limit = build_limit(LimitSettings(requests))
            self.assertIsInstance(limit.limiter, limiter_class)
            self.assertEqual(limit.limiter.remaining(b"key", 0.0), requests)

    def test_slow_client_is_never_rejected(self) -> None:
        """A client that sends its requests a little slower than the limit is admitted."""
        for requests in (1, 2, 3, 10):
            limiter = build_limit(LimitSettings(requests)).limiter
            now = 7.0
            for _ in range(50):
                self.assertTrue(limiter.admit(b"key", now), msg=f"{requests} at {now}")
                now += 61 / requests

    def test_retry_after_does_not_exceed_the_window(self) -> None:
        """Retry-After in whole seconds is at most the window, where sums are rounded too."""
        for requests in (1, 2, 10, 11, 100):
            for tenths in range(0, 1300, 7):
                limiter, now = build_limit(LimitSettings(requests)).limiter, tenths / 10
                while limiter.admit(b"key", now):
                    pass
                wait = limiter.retry_after(b"key", now)
                self.assertLessEqual(Rejection(429, "", wait).retry_after, 60)
                self.assertTrue(limiter.admit(b"key", now + 60))

    def test_invalid_settings(self) -> None:
        """Invalid settings are rejected with the expected form."""
        cases = {
            "expected one of concurrent, fixed-window, ": LimitSettings(1, algorithm="leaky"),
            "at least 1 request": LimitSettings(0),
            "more than 0 seconds": LimitSettings(1, 0.0),
            "expected client, host": LimitSettings(1, key=("clients",)),
            "at least 1": LimitSettings(1, algorithm="token-bucket", burst=0),
            "expected 400 to 599": LimitSettings(1, status=200),
            "expected letters and digits": LimitSettings(1, name='say "no"'),
            "invalid limit name": LimitSettings(1, key=("path:/a\r\nb",)),
            "expected 1 to 128": LimitSettings(1, ipv6_prefix=0),
        }
        for text, invalid in cases.items():
            with self.assertRaises(ValueError) as caught:
                build_limit(invalid)
            self.assertIn(text, str(caught.exception))
