"""
`python -m bench.limits`: what limits cost, and what a million keys do to them.

In memory: the time for an admitted request, by limiter and number of keys, and
of the whole service with the one limit that most have. Then a flood of a
million random addresses: memory for each key, the longest single steps, and
how many of those who were limited before the flood are limited after it.
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

# So many that none is refused, in windows that do not end meanwhile.
UNREACHABLE_LIMIT = 1_000_000_000
START_TIME = 7200.0
WINDOW = 3600.0

# In the flood.
REQUESTS = 10
LIMITED_CLIENTS = 100
EXPIRE_INTERVAL = 20_000


@define(slots=True)
class Request:
    """Of a request, what limits look at."""

    client_key: bytes
    client: str = "192.0.2.1"
    host: bytes | None = b"localhost"
    target: bytes = b"/"
    permits: Permits = ()

    def field_values(self, name: bytes) -> list[bytes]:
        return []


def random_addresses(count: int, seed: int = 1) -> list[bytes]:
    """Random IPv4 addresses, in four octets."""
    seeded = random.Random(seed)
    return [seeded.getrandbits(32).to_bytes(4, "big") for _ in range(count)]


def unreachable_limit(algorithm: str) -> LimitSettings:
    return LimitSettings(UNREACHABLE_LIMIT, WINDOW, algorithm)


def median_nanoseconds(run: Callable[[], int], runs: int = 5) -> float:
    """The time for each of the requests of `run`, which says how many it made."""
    results = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        requests = run()
        results.append((time.perf_counter() - begun) / requests * 1e9)
    # The first run is the warm-up.
    return statistics.median(results[1:])


def request_keys(size: int, requests: int) -> list[bytes]:
    """Keys for so many requests, of `size` in no order; all of them come up."""
    keys = random_addresses(size)
    return [keys[number % size] for number in range(max(size, requests))]


def limiter_nanoseconds(algorithm: str, size: int, requests: int = 200_000) -> float:
    """For one request that a limiter admits, without the loop around it."""
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
    """What the loop in which the others are measured costs, with an empty call."""

    def run() -> int:
        moment = START_TIME
        for _ in keys:
            moment += 1e-6
        return len(keys)

    return median_nanoseconds(run)


def limit_set_nanoseconds(size: int, requests: int = 200_000) -> float:
    """For one request that a `LimitSet` of one sliding window admits."""
    together = LimitSet([build_limit(unreachable_limit("sliding-window"))])
    made = [Request(key) for key in request_keys(size, requests)]
    now = START_TIME

    def run() -> int:
        nonlocal now
        admit, moment = together.admit, now
        for request in made:
            moment += 1e-6
            admit(request, moment)
        now = moment
        return len(made)

    return median_nanoseconds(run)


def admission_nanoseconds(
    size: int, limit_settings: Sequence[LimitSettings], requests: int = 200_000
) -> float:
    """For one request that the service admits, with the clock that it reads."""
    limits = [build_limit(settings) for settings in limit_settings]
    service = Admission(limits, AccessList(), time.monotonic)
    made = [Request(key) for key in request_keys(size, requests)]

    def run() -> int:
        admit = service.admit
        for request in made:
            admit(request)
        return len(made)

    return median_nanoseconds(run)


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def exhaust(limiter: RateLimiter, count: int) -> list[bytes]:
    """So many clients do as much as they may."""
    clients = [b"limited %d" % number for number in range(count)]
    for key in clients:
        while limiter.admit(key, START_TIME):
            pass
    return clients


@define
class MaxDuration:
    """The longest of some steps, in milliseconds."""

    milliseconds: float = 0.0

    def add(self, started_at: float) -> None:
        self.milliseconds = max(self.milliseconds, (time.perf_counter() - started_at) * 1e3)


def measure_flood(algorithm: str, max_keys: int, flood: int) -> None:
    """Print what a flood of random addresses does to one limiter."""
    keys = random.Random(2)
    limiter = build_limit(LimitSettings(REQUESTS, WINDOW, algorithm), max_keys).limiter
    gc.collect()
    before = resident_bytes()
    clients = exhaust(limiter, LIMITED_CLIENTS)
    admit, tidy, now, longest_known = MaxDuration(), MaxDuration(), START_TIME, 0
    for number in range(flood):
        key = keys.getrandbits(32).to_bytes(4, "big")
        now += 1e-5
        begun = time.perf_counter()
        limiter.admit(key, now)
        admit.add(begun)
        if number % EXPIRE_INTERVAL == 0:
            begun = time.perf_counter()
            limiter.expire(now)
            tidy.add(begun)
            longest_known = max(longest_known, len(limiter))
    grown = resident_bytes() - before
    known = len(limiter)
    limited = sum(limiter.retry_after(key, now) > 0 for key in clients)
    # Then nobody comes any more.
    for _ in range(64):
        now += 2 * WINDOW / 32
        begun = time.perf_counter()
        limiter.expire(now)
        tidy.add(begun)
    print(
        f"{algorithm:16}{max_keys:>11,}{max(known, longest_known):>11,}{grown / known:>10.0f}"
        f"{admit.milliseconds:>10.2f}{tidy.milliseconds:>9.2f}"
        f"{limited:>8}/{LIMITED_CLIENTS}{len(limiter):>8,}",
        flush=True,
    )


def run_in_subprocess(function: Callable[[str, int, int], None], *arguments: object) -> None:
    """In a process of its own, whose memory nothing else has used."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()


def print_costs() -> None:
    """The first table."""
    print(f"{'ns/admitted request, keys:':34}" + "".join(f"{size:>12,}" for size in KEY_COUNTS))
    rows: dict[str, Callable[[int], float]] = {}
    for name in ALGORITHMS:
        rows[name] = lambda size, name=name: limiter_nanoseconds(name, size)  # type: ignore[misc]
    one, other = unreachable_limit("sliding-window"), unreachable_limit("token-bucket")
    rows["LimitSet, one limit"] = limit_set_nanoseconds
    rows["service, no limit"] = lambda size: admission_nanoseconds(size, ())
    rows["service, one limit (default)"] = lambda size: admission_nanoseconds(size, (one,))
    rows["service, two limits"] = lambda size: admission_nanoseconds(size, (one, other))
    for name, measure in rows.items():
        print(f"{name:34}" + "".join(f"{measure(size):12.0f}" for size in KEY_COUNTS), flush=True)


def print_flood(flood: int) -> None:
    """The second table."""
    print(f"\na flood of {flood:,} random addresses")
    print(
        f"{'':16}{'most keys':>11}{'known':>11}{'octets/':>10}{'longest':>10}{'longest':>9}"
        f"{'still':>12}{'left':>8}\n{'':38}{'key':>10}{'admit ms':>10}{'tidy ms':>9}"
        f"{'limited':>12}{'at last':>8}"
    )
    for most in (MAX_KEYS, 100_000):
        for name in ALGORITHMS[:-1]:
            run_in_subprocess(measure_flood, name, most, flood)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--flood", type=int, default=1_000_000, help="addresses in the flood")
    options = parser.parse_args()
    print_costs()
    print_flood(options.flood)


if __name__ == "__main__":
    main()
