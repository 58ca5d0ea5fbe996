"""The token bucket."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.ratelimit.token_bucket import TokenBucket
from tests.helpers import limiter_contract
from tests.helpers.limiters import TOKEN_BUCKET, admitted_times


class TokenBucketTests(limiter_contract.LimiterContract):
    """The contract of limiters, with the promise about bursts and rate."""

    algorithm = TOKEN_BUCKET

    def check_promise(
        self, requests: int, window: float, burst: int, times: Sequence[float]
    ) -> None:
        """At most `burst + requests * t / window` requests in any t seconds."""
        admitted, _ = admitted_times(TokenBucket(requests, window, burst), times)
        for first, start in enumerate(admitted):
            for last, end in enumerate(admitted[first:], start=first):
                allowed = burst + requests * max(0.0, end - start) / window
                self.assertLessEqual(last - first + 1, allowed + 1e-5)
