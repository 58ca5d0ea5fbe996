"""
`python -m bench.algorithms`: what choosing a server costs, by algorithm.

In memory: the time to choose a server, to give it the request and to take it
back, with 64 requests in flight from 1,000 clients. With `--proxy` each
algorithm also runs in the whole program under `wrk`, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Callable

from attrs import evolve

from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet
from bench import processes
from bench.__main__ import measure
from bench.loads import WORKLOADS

POOL_SIZES = (3, 100, 1000)
CLIENTS = [f"10.0.{number >> 8}.{number & 255}" for number in range(1000)]
IN_FLIGHT = 64


def nanoseconds_per_request(name: str, size: int, weighted: bool, requests: int = 50_000) -> float:
    """The time for one request, in nanoseconds: the median of five runs."""
    seeded = random.Random(1)
    server_set = ServerSet(
        ServerSettings(TcpAddress(f"10.1.{n >> 8}.{n & 255}", 80), n % 5 + 1 if weighted else 1)
        for n in range(size)
    )
    selector = SelectorService(lambda: ALGORITHMS[name](seeded), server_set)
    flying: list[Server] = []
    runs = []
    for _ in range(6):
        begun = time.perf_counter()
        for number in range(requests):
            server = next(iter(selector.candidates(CLIENTS[number % 1000])))[0]
            server.in_flight += 1
            if server.tracked:
                selector.request_started(server, number * 1e-4)
            flying.append(server)
            if len(flying) > IN_FLIGHT:
                done = flying.pop(number % IN_FLIGHT)
                done.in_flight -= 1
                if done.tracked:
                    selector.request_finished(done, 0.001, number * 1e-4)
        runs.append((time.perf_counter() - begun) / requests * 1e9)
    # The first run is the warm-up.
    return statistics.median(runs[1:])


def proxy_cpu_microseconds(seconds: int, rounds: int) -> dict[str, float]:
    """CPU time of the program per small request, in microseconds, by algorithm."""
    load = next(load for load in WORKLOADS if load.name == "small")
    ours = processes.peers()["balancebeam"]
    rows: dict[str, list[float]] = {name: [] for name in ALGORITHMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = processes.start_backend(folder)
        try:
            for _ in range(rounds):
                for algorithm, costs in rows.items():
                    command = partial(_command, ours.command, algorithm)
                    row = measure(evolve(ours, command=command), load, seconds, folder)
                    costs.append(row["cpu_us_per_request"])
        finally:
            server.stop()
    return {name: statistics.median(values) for name, values in rows.items()}


def _command(
    base_command: Callable[[Path, int], list[str]], algorithm: str, folder: Path, port: int
) -> list[str]:
    """The program over three servers instead of one."""
    more = [f"127.0.0.{n}:{processes.BACKEND_PORT}" for n in (2, 3)]
    return [*base_command(folder, port), "--algorithm", algorithm, "-u", more[0], "-u", more[1]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.algorithms", description=__doc__)
    parser.add_argument("--proxy", action="store_true", help="measure the whole program too")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    heads = [*map(str, POOL_SIZES), *(f"{size} w" for size in POOL_SIZES)]
    print(f"{'ns/request, servers:':24}" + "".join(f"{head:>9}" for head in heads))
    for name in ALGORITHMS:
        columns = [
            nanoseconds_per_request(name, size, weighted)
            for weighted in (False, True)
            for size in POOL_SIZES
        ]
        print(f"{name:24}" + "".join(f"{column:9.0f}" for column in columns))
    if options.proxy:
        print("\nCPU us per small request, whole program")
        for name, cost in proxy_cpu_microseconds(options.seconds, options.rounds).items():
            print(f"{name:24}{cost:9.2f}")


if __name__ == "__main__":
    main()
