"""
Benchmark of reloads under load: `python -m bench.reload`.

wrk sends requests while the configuration file is replaced and SIGHUP is sent
every 200 ms: pools, servers, limits, routes and listeners are added and removed.
Prints the numbers of requests, of failed requests (0 expected), of reloads and
of rejected reloads (0 expected), and memory and descriptors before and after.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import peers
from bench.workloads import WORKLOADS

PORT = 18120
# Seconds between two reloads.
RELOAD_INTERVAL = 0.2

ALGORITHMS = (
    *("round-robin", "random", "least-connections", "power-of-two", "source-ip-hash"),
    *("least-response-time", "sticky-round-robin", "weighted-round-robin"),
)


def make_config(number: int) -> str:
    """Return the configuration file for reload `number`; each differs from the previous."""
    servers = [f"127.0.0.{1 + (number + index) % 3}" for index in range(1 + number % 3)]
    upstreams = ", ".join(
        f'{{address = "{host}:{peers.BACKEND_PORT}", weight = {1 + number % 4}}}'
        for host in servers
    )
    # The name of the main pool changes with every third reload.
    pool = f"app{number // 3 % 2}"
    lines = [
        '[[frontend]]\nname = "web"',
        f'bind = ["127.0.0.1:{PORT}"' + (f', "127.0.0.1:{PORT + 1 + number % 2}"]'),
        f'pool = "{pool}"\ntimeouts = {{idle = {60 + number % 5}}}',
        f"[[frontend.limit]]\nrequests = {10**9 - number % 2}\nper = 60",
        "[[frontend.limit]]\nrequests = 1000000000\nper = 30",
    ]
    if number % 2:
        lines += ['[[frontend.route]]\nhost = "localhost"\npool = "other"']
        lines += [f'[[pool]]\nname = "other"\nupstreams = ["127.0.0.2:{peers.BACKEND_PORT}"]']
    if number % 4 == 1:
        lines += [f'[[frontend]]\nname = "more"\nbind = "127.0.0.1:{PORT + 3}"\npool = "{pool}"']
    lines += [
        f'[[pool]]\nname = "{pool}"\nupstreams = [{upstreams}]',
        f'algorithm = "{ALGORITHMS[number % len(ALGORITHMS)]}"',
        f"timeouts = {{connect = {1 + number % 3}}}",
    ]
    if number % 5 == 0:
        lines += ['[pool.health]\npath = "/"\ninterval = 1']
    return "\n".join(lines) + "\n"


class Reloader(threading.Thread):
    """
    Thread that replaces `config` and sends SIGHUP to `process` every 200 ms.

    Attributes:
        stopped: event that ends the thread.
        count: number of reloads requested so far.
    """

    def __init__(self, process: peers.Process, config: Path) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._config = config
        self.stopped = threading.Event()
        self.count = 0

    def run(self) -> None:
        """Reload until `stopped` is set."""
        while not self.stopped.wait(RELOAD_INTERVAL):
            self.count += 1
            new_config = self._config.with_suffix(".new")
            new_config.write_text(make_config(self.count))
            os.replace(new_config, self._config)
            os.kill(self._process.pids()[0], signal.SIGHUP)


def resource_usage(process: peers.Process) -> tuple[float, int]:
    """Return the resident memory in MB and the number of file descriptors."""
    return process.resident_bytes() / (1 << 20), process.fd_count()


def run(process: peers.Process, config: Path, seconds: int) -> None:
    """Print the figures; the exit status is 1 if a request or a reload failed."""
    workload = WORKLOADS[1]
    # A warm-up, so that memory that is allocated once does not count as a leak.
    warm_up = Reloader(process, config)
    warm_up.start()
    workload.run(PORT, 10, config.parent)
    warm_up.stopped.set()
    warm_up.join()
    time.sleep(3)
    before = resource_usage(process)
    reloader = Reloader(process, config)
    reloader.count = warm_up.count
    reloader.start()
    result = workload.run(PORT, seconds, config.parent)
    reloader.stopped.set()
    reloader.join()
    time.sleep(3)
    process.ensure_running()
    after = resource_usage(process)
    log = (config.parent / "log.txt").read_text()
    rejected = log.count("reload rejected")
    print(
        f"{result.requests} requests, {result.failed} failed; "
        f"{reloader.count - warm_up.count} reloads, {rejected} rejected; "
        f"p99 {result.latency_p99:.1f} ms"
    )
    print(
        f"resident {before[0]:.2f} -> {after[0]:.2f} MB, descriptors {before[1]} -> {after[1]}; "
        f"{log.count('Traceback')} tracebacks"
    )
    if result.failed or rejected or "Traceback" in log:
        raise SystemExit(1)


def main() -> None:
    """Start the upstream server and the program, and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="length of the run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server_home, home = folder / "backend", folder / "proxy"
        server_home.mkdir()
        home.mkdir()
        config = home / "config.toml"
        config.write_text(make_config(0))
        server = peers.start_backend(server_home)
        command = [sys.executable, "-m", "balancebeam", "--config", str(config)]
        process = peers.Process(command, peers.PROXY_CORE, home)
        try:
            peers.wait_for_port(PORT)
            run(process, config, options.seconds)
        finally:
            process.stop()
            server.stop()


if __name__ == "__main__":
    main()
