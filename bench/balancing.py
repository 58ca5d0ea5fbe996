"""
Benchmark of the balancing algorithms: `python -m bench.balancing`.

In memory: the time to select a server and to account for the start and the end
of the request, with 64 requests in flight from 1,000 clients. With `--proxy`
each algorithm also runs in the whole program under `wrk`, in interleaved
rounds.
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
from bench import peers
from bench.__main__ import measure
from bench.workloads import WORKLOADS

POOL_SIZES = (3, 100, 1000)
CLIENTS = [f"10.0.{number >> 8}.{number & 255}" for number in range(1000)]
IN_FLIGHT = 64


def nanoseconds_per_request(name: str, size: int, weighted: bool, requests: int = 50_000) -> float:
    """
    Measure the time per request in nanoseconds: the median of five runs.

    Args:
        name: name of the algorithm.
        size: number of servers.
        weighted: whether the weights are 1 to 5, instead of all 1.
        requests: requests of one run.
    """
    seeded = random.Random(1)
    server_set = ServerSet(
        ServerSettings(TcpAddress(f"10.1.{n >> 8}.{n & 255}", 80), n % 5 + 1 if weighted else 1)
        for n in range(size)
    )
    selector = SelectorService(lambda: ALGORITHMS[name](seeded), server_set)
    in_flight: list[Server] = []
    runs = []
    for _ in range(6):
        started_at = time.perf_counter()
        for number in range(requests):
            server = next(iter(selector.candidates(CLIENTS[number % 1000])))[0]
            server.in_flight += 1
            if server.tracked:
                selector.request_started(server, number * 1e-4)
            in_flight.append(server)
            if len(in_flight) > IN_FLIGHT:
                done = in_flight.pop(number % IN_FLIGHT)
                done.in_flight -= 1
                if done.tracked:
                    selector.request_finished(done, 0.001, number * 1e-4)
        runs.append((time.perf_counter() - started_at) / requests * 1e9)
    # The first run is the warm-up.
    return statistics.median(runs[1:])


def proxy_cpu_microseconds(seconds: int, rounds: int) -> dict[str, float]:
    """Measure the program's CPU time per small request, in microseconds, by algorithm."""
    workload = next(workload for workload in WORKLOADS if workload.name == "small")
    balancebeam = peers.all_peers()["balancebeam"]
    rows: dict[str, list[float]] = {name: [] for name in ALGORITHMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = peers.start_backend(folder)
        try:
            for _ in range(rounds):
                for algorithm, costs in rows.items():
                    command = partial(_command, balancebeam.command, algorithm)
                    row = measure(evolve(balancebeam, command=command), workload, seconds, folder)
                    costs.append(row["cpu_us_per_request"])
        finally:
            server.stop()
    return {name: statistics.median(values) for name, values in rows.items()}


def _command(
    base_command: Callable[[Path, int], list[str]], algorithm: str, folder: Path, port: int
) -> list[str]:
    """Return the command line with three servers and `algorithm`."""
    command = [*base_command(folder, port), "--algorithm", algorithm]
    for host in ("127.0.0.2", "127.0.0.3"):
        command += ["--upstream", f"{host}:{peers.BACKEND_PORT}"]
    return command


def main() -> None:
    """Print the cost of each algorithm."""
    parser = argparse.ArgumentParser(prog="python -m bench.balancing", description=__doc__)
    parser.add_argument("--proxy", action="store_true", help="also measure the whole program")
    parser.add_argument("--seconds", type=int, default=3, help="length of one run")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    options = parser.parse_args()
    headings = [*map(str, POOL_SIZES), *(f"{size} w" for size in POOL_SIZES)]
    print(f"{'ns/request, servers:':24}" + "".join(f"{heading:>9}" for heading in headings))
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
