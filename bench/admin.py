"""
Benchmark of the admin API under load: `python -m bench.admin`.

A balancer with 200 servers in four pools gets requests at constant rates (`h2load --rps`, of
Debian's package nghttp2-client), and as many as it can answer (`wrk`). Rounds without and with
scrapes of `GET /metrics`, and without and with viewers of `GET /events`, are interleaved, so
that changes of the machine affect all alike. The servers are the addresses 127.1.0.1, 127.1.0.2
and so on of one nginx. It prints the medians of all rounds: percentiles of the latency, the CPU
time of the balancer in percent of a core by the accounting of the kernel, and its CPU time per
request.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from bench import peers
from bench.load_generator import Result
from bench.workloads import Workload

PORT, ADMIN_PORT = 18130, 18131
POOLS = 4

SCRAPE = (
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0\r\n\r\n"
)
EVENTS = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

# Full load: as many connections as the workload `small` has.
FULL = Workload("full", "wrk", 64)


@frozen
class Case:
    """
    What the admin API does in a run.

    Attributes:
        name: For the table.
        scrapes: Scrapes per second.
        viewers: Open streams of events.
    """

    name: str
    scrapes: float = 0.0
    viewers: int = 0


CASES = (
    Case("nothing"),
    Case("1 scrape/s", scrapes=1),
    Case("5 scrapes/s", scrapes=5),
    Case("10 viewers", viewers=10),
)


@frozen
class Figures:
    """
    The figures of one run.

    Attributes:
        cpu: CPU time of the balancer in percent of a core.
        cpu_per_request: CPU time of the balancer for each request, in microseconds; 0 without load.
        scrape: Median duration of a scrape in milliseconds; 0 without any.
        result: Of the load generator; `None` without load.
    """

    cpu: float
    cpu_per_request: float
    scrape: float
    result: Result | None


def hosts(servers: int) -> list[str]:
    """Return the addresses of the servers."""
    return [f"127.1.0.{number + 1}" for number in range(servers)]


def make_config(servers: int) -> str:
    """Return a configuration file; the paths /1 to /3 lead to other pools than / does."""
    lines = [f'[admin]\nbind = "127.0.0.1:{ADMIN_PORT}"']
    lines += [f'[[frontend]]\nname = "web"\nbind = "127.0.0.1:{PORT}"\npool = "pool0"']
    for pool in range(1, POOLS):
        lines += [f'[[frontend.route]]\npath = "/{pool}"\npool = "pool{pool}"']
    for pool in range(POOLS):
        addresses = hosts(servers)[pool::POOLS]
        upstreams = ", ".join(f'"{host}:{peers.BACKEND_PORT}"' for host in addresses)
        lines += [f'[[pool]]\nname = "pool{pool}"\nupstreams = [{upstreams}]']
    return "\n".join(lines) + "\n"


class Admin:
    """
    The clients of the admin API during a run.

    Attributes:
        durations: Milliseconds that each scrape took.
        received: Bytes that viewers received.
    """

    def __init__(self, case: Case) -> None:
        self.durations: list[float] = []
        self.received = 0
        self._case = case
        self._done = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Scrape and view until the end of the context."""
        targets = [self._scrape] if self._case.scrapes else []
        targets += [self._view] * self._case.viewers
        threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def _scrape(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=10)
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        with contextlib.closing(connection):
            while not self._done.wait(1 / self._case.scrapes):
                started_at = time.perf_counter()
                connection.request("GET", "/metrics", headers=accept)
                response = connection.getresponse()
                text = response.read()
                self.durations.append((time.perf_counter() - started_at) * 1000)
                if response.status != 200 or not text.endswith(b"# EOF\n"):
                    raise RuntimeError(f"scrape failed: status {response.status}")

    def _view(self) -> None:
        with socket.create_connection(("127.0.0.1", ADMIN_PORT), 10) as viewer:
            viewer.sendall(EVENTS)
            while not self._done.is_set():
                self.received += len(viewer.recv(1 << 20))


def run_case(process: peers.Process, case: Case, load: Workload | None, seconds: int) -> Figures:
    """Return the figures of one run of `seconds` seconds, with `load` or idle."""
    admin = Admin(case)
    with admin.running():
        # A first scrape or snapshot, before the time is taken.
        time.sleep(1)
        used, started_at = process.cpu_seconds(), time.perf_counter()
        result = None
        if load is None:
            time.sleep(seconds)
        else:
            result = load.run(PORT, seconds, Path(tempfile.gettempdir()))
        used = process.cpu_seconds() - used
        cpu = 100 * used / (time.perf_counter() - started_at)
    process.ensure_running()
    if (case.scrapes and not admin.durations) or (case.viewers and not admin.received):
        raise RuntimeError(f"no response to {case.name}")
    per_request = 0.0 if result is None else 1e6 * used / result.requests
    return Figures(cpu, per_request, statistics.median(admin.durations or [0.0]), result)


def _median(values: list[float]) -> float:
    """Return the median; 0 without any value."""
    return statistics.median(values) if values else 0.0


def print_load(name: str, rounds: dict[str, list[Figures]]) -> None:
    """Print the medians of all cases with one load."""
    print(f"\n{name}")
    heads = ("CPU %", "CPU us/req", "p50 ms", "p99 ms", "req/s", "failed", "scrape ms")
    print(f"{'':14}" + "".join(f"{head:>11}" for head in heads))
    for case, figures in rounds.items():
        results = [item.result for item in figures if item.result is not None]
        columns = [
            _median([item.cpu for item in figures]),
            _median([item.cpu_per_request for item in figures]),
            _median([result.latency_p50 for result in results]),
            _median([result.latency_p99 for result in results]),
            _median([result.requests / result.seconds for result in results]),
            sum(result.failed for result in results),
            _median([item.scrape for item in figures]),
        ]
        print(f"{case:14}" + "".join(f"{column:11.2f}" for column in columns), flush=True)


def measure(process: peers.Process, options: argparse.Namespace) -> None:
    """Print the figures of all loads."""
    # All servers get connections, and memory that is allocated once is allocated.
    warm_up = FULL.run(PORT, 3, Path(tempfile.gettempdir()))
    capacity = warm_up.requests / warm_up.seconds
    if warm_up.failed:
        raise RuntimeError(f"{warm_up.failed} requests failed")
    print(f"capacity {capacity:.0f} requests per second")
    loads: dict[str, Workload | None] = {"idle": None}
    for rate in options.rates:
        steady = Workload("steady", "h2load", 16, rate=rate)
        loads[f"{rate} requests per second, {100 * rate / capacity:.0f} % of the capacity"] = steady
    loads["full load"] = FULL
    for name, load in loads.items():
        if options.loads and not any(text in name for text in options.loads):
            continue
        rounds: dict[str, list[Figures]] = {case.name: [] for case in CASES}
        for _ in range(options.rounds):
            for case in CASES:
                rounds[case.name].append(run_case(process, case, load, options.seconds))
        print_load(name, rounds)


def main() -> None:
    """Start nginx and the balancer, and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.admin", description=__doc__)
    parser.add_argument("--servers", type=int, default=200, help="number of servers, at most 254")
    parser.add_argument("--seconds", type=int, default=8, help="length of a run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case")
    parser.add_argument(
        "--rates", type=int, nargs="*", default=[1000, 4000], help="constant rates per second"
    )
    parser.add_argument("--loads", nargs="*", default=[], help="parts of names of loads, e.g. full")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server_home, home = folder / "backend", folder / "proxy"
        server_home.mkdir()
        home.mkdir()
        config = home / "config.toml"
        config.write_text(make_config(options.servers))
        for port in (PORT, ADMIN_PORT):
            peers.ensure_free(port)
        server = peers.start_backend(server_home, hosts(options.servers))
        command = [sys.executable, "-m", "balancebeam", "--config", str(config)]
        process = peers.Process(command, peers.PROXY_CORE, home)
        try:
            peers.wait_for_port(PORT, process=process)
            measure(process, options)
        finally:
            process.stop()
            server.stop()


if __name__ == "__main__":
    main()
