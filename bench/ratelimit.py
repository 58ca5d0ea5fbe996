"""
Benchmark of the rate limit algorithms: `python -m bench.ratelimit`.

In memory: the time per admitted request, by algorithm and number of keys, and
that of the whole admission with the usual single limit. Then a flood of a
million random addresses: memory per key, the longest single calls, and how many
clients that were over their limit before the flood are still limited after it.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Callable

from attrs import define

from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Admission, Permits
from balancebeam.core.settings import LimitSettings
from balancebeam.ratelimit.base import MAX_KEYS, RateLimiter
from balancebeam.ratelimit.limit import LimitSet, build_limit

ALGORITHMS = ("fixed-window", "sliding-window", "sliding-log", "token-bucket", "concurrent")
KEY_COUNTS = (1_000, 1_000_000)

# High enough that no request is rejected; the window is longer than a run.
UNREACHABLE_LIMIT = 1_000_000_000
START_TIME = 7200.0
WINDOW = 3600.0

# The flood: the limit in requests per window, the clients that are over it before the flood,
# and the requests between two calls of `expire`.
REQUESTS = 10
LIMITED_CLIENTS = 100
EXPIRE_INTERVAL = 20_000


@define(slots=True)
class Request:
    """The attributes of a request that rate limits and access lists read."""

    client_key: bytes
    client: str = "192.0.2.1"
    host: bytes | None = b"localhost"
    target: bytes = b"/"
    permits: Permits = ()

    def field_values(self, name: bytes) -> list[bytes]:
        """Return the values of a header: none."""
        return []


def random_addresses(count: int, seed: int = 1) -> list[bytes]:
    """Return `count` random IPv4 addresses of four bytes each."""
    seeded = random.Random(seed)
    return [seeded.getrandbits(32).to_bytes(4, "big") for _ in range(count)]


def unreachable_limit(algorithm: str) -> LimitSettings:
    """Return a limit that rejects no request."""
    return LimitSettings(UNREACHABLE_LIMIT, WINDOW, algorithm)


def median_nanoseconds(run: Callable[[], int], runs: int = 5) -> float:
    """Measure the time per request; `run` returns the number of requests that it made."""
    results = []
    for _ in range(runs + 1):
        started_at = time.perf_counter()
        requests = run()
        results.append((time.perf_counter() - started_at) / requests * 1e9)
    # The first run is the warm-up.
    return statistics.median(results[1:])


def request_keys(size: int, requests: int) -> list[bytes]:
    """Return the keys of at least `requests` requests, with each of `size` keys in random order."""
    keys = random_addresses(size)
    return [keys[number % size] for number in range(max(size, requests))]


def limiter_nanoseconds(algorithm: str, size: int, requests: int = 200_000) -> float:
    """Measure one request that a limiter admits, without the loop around it."""
    limiter = build_limit(unreachable_limit(algorithm)).limiter
    keys = request_keys(size, requests)
    now = START_TIME

    def run() -> int:
        nonlocal now
        admit, moment = limiter.admit, now
        for key in keys:
            moment += 1e-6
            admit(key, moment)
        now = moment
        return len(keys)

    return median_nanoseconds(run) - loop_nanoseconds(keys)


def loop_nanoseconds(keys: Sequence[bytes]) -> float:
    """Measure one pass of the loop of `limiter_nanoseconds` without the call."""

    def run() -> int:
        moment = START_TIME
        for _ in keys:
            moment += 1e-6
        return len(keys)

    return median_nanoseconds(run)


def limit_set_nanoseconds(size: int, requests: int = 200_000) -> float:
    """Measure one request that a `LimitSet` of one sliding window admits."""
    limit_set = LimitSet([build_limit(unreachable_limit("sliding-window"))])
    request_list = [Request(key) for key in request_keys(size, requests)]
    now = START_TIME

    def run() -> int:
        nonlocal now
        admit, moment = limit_set.admit, now
        for request in request_list:
            moment += 1e-6
            admit(request, moment)
        now = moment
        return len(request_list)

    return median_nanoseconds(run)


def admission_nanoseconds(
    size: int, limit_settings: Sequence[LimitSettings], requests: int = 200_000
) -> float:
    """Measure one request that `Admission` admits, including its read of the clock."""
    limits = [build_limit(settings) for settings in limit_settings]
    admission = Admission(limits, AccessList(), time.monotonic)
    request_list = [Request(key) for key in request_keys(size, requests)]

    def run() -> int:
        admit = admission.admit
        for request in request_list:
            admit(request)
        return len(request_list)

    return median_nanoseconds(run)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def exhaust(limiter: RateLimiter, count: int) -> list[bytes]:
    """Let `count` clients use up their limit, and return their keys."""
    clients = [b"limited %d" % number for number in range(count)]
    for key in clients:
        while limiter.admit(key, START_TIME):
            pass
    return clients


@define
class MaxDuration:
    """The longest duration of several calls, in milliseconds."""

    milliseconds: float = 0.0

    def add(self, started_at: float) -> None:
        """Count a call that started at `started_at`, by `perf_counter`, and ends now."""
        self.milliseconds = max(self.milliseconds, (time.perf_counter() - started_at) * 1e3)


def measure_flood(algorithm: str, max_keys: int, flood: int) -> None:
    """Print one line of figures about a flood of random addresses through one limiter."""
    seeded = random.Random(2)
    limiter = build_limit(LimitSettings(REQUESTS, WINDOW, algorithm), max_keys).limiter
    gc.collect()
    before = resident_bytes()
    clients = exhaust(limiter, LIMITED_CLIENTS)
    admit, expire, now, max_size = MaxDuration(), MaxDuration(), START_TIME, 0
    for number in range(flood):
        key = seeded.getrandbits(32).to_bytes(4, "big")
        now += 1e-5
        started_at = time.perf_counter()
        limiter.admit(key, now)
        admit.add(started_at)
        if number % EXPIRE_INTERVAL == 0:
            started_at = time.perf_counter()
            limiter.expire(now)
            expire.add(started_at)
            max_size = max(max_size, len(limiter))
    memory = resident_bytes() - before
    size = len(limiter)
    limited = sum(limiter.retry_after(key, now) > 0 for key in clients)
    # Then two windows without requests, in which all keys expire.
    for _ in range(64):
        now += 2 * WINDOW / 32
        started_at = time.perf_counter()
        limiter.expire(now)
        expire.add(started_at)
    print(
        f"{algorithm:16}{max_keys:>11,}{max(size, max_size):>11,}{memory / size:>10.0f}"
        f"{admit.milliseconds:>10.2f}{expire.milliseconds:>10.2f}"
        f"{limited:>8}/{LIMITED_CLIENTS}{len(limiter):>8,}",
        flush=True,
    )


def run_in_subprocess(function: Callable[[str, int, int], None], *arguments: object) -> None:
    """Call `function` in a new process, whose memory has no other use."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()


def print_costs() -> None:
    """Print the time per admitted request, by algorithm and number of keys."""
    print(f"{'ns/admitted request, keys:':34}" + "".join(f"{size:>12,}" for size in KEY_COUNTS))
    rows: dict[str, Callable[[int], float]] = {}
    for name in ALGORITHMS:
        rows[name] = partial(limiter_nanoseconds, name)
    one_limit = [unreachable_limit("sliding-window")]
    two_limits = [*one_limit, unreachable_limit("token-bucket")]
    rows["LimitSet, one limit"] = limit_set_nanoseconds
    rows["Admission, no limit"] = lambda size: admission_nanoseconds(size, ())
    rows["Admission, one limit (default)"] = lambda size: admission_nanoseconds(size, one_limit)
    rows["Admission, two limits"] = lambda size: admission_nanoseconds(size, two_limits)
    for name, measure in rows.items():
        print(f"{name:34}" + "".join(f"{measure(size):12.0f}" for size in KEY_COUNTS), flush=True)


def print_flood(flood: int) -> None:
    """Print the figures about a flood of `flood` random addresses, by algorithm."""
    print(f"\na flood of {flood:,} random addresses")
    print(
        f"{'':16}{'max. keys':>11}{'keys':>11}{'bytes per':>10}{'longest':>10}{'longest':>10}"
        f"{'still':>12}{'keys at':>8}\n{'':38}{'key':>10}{'admit ms':>10}{'expire ms':>10}"
        f"{'limited':>12}{'the end':>8}"
    )
    for max_keys in (MAX_KEYS, 100_000):
        for name in ALGORITHMS[:-1]:
            run_in_subprocess(measure_flood, name, max_keys, flood)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.ratelimit", description=__doc__)
    parser.add_argument(
        "--flood", type=int, default=1_000_000, help="number of addresses in the flood"
    )
    options = parser.parse_args()
    print_costs()
    print_flood(options.flood)


if __name__ == "__main__":
    main()
