"""
`python -m bench.reload`: what a reload every 200 ms costs the clients.

wrk asks through the program while its file changes and SIGHUP is sent: pools,
servers, limits, routes and listeners come and go. Prints the requests, those
that failed (there must be none), the reloads and those refused (none either),
and memory and descriptors before and after.
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

from bench import processes
from bench.loads import WORKLOADS

PORT = 18120
# Seconds between two reloads.
RELOAD_INTERVAL = 0.2

ALGORITHMS = (
    *("round-robin", "random", "least-connections", "power-of-two", "source-ip-hash"),
    *("least-response-time", "sticky-round-robin", "weighted-round-robin"),
)


def make_config(number: int) -> str:
    """The file for the reload of that `number`; each differs from the one before."""
    servers = [f"127.0.0.{1 + (number + place) % 3}" for place in range(1 + number % 3)]
    upstreams = ", ".join(
        f'{{address = "{host}:{processes.BACKEND_PORT}", weight = {1 + number % 4}}}'
        for host in servers
    )
    # The main pool is called something else every third time.
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
        lines += [f'[[pool]]\nname = "other"\nupstreams = ["127.0.0.2:{processes.BACKEND_PORT}"]']
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
    """Changes `config` and tells `process` until `done`; `count` is how often."""

    def __init__(self, process: processes.Process, config: Path) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._config = config
        self.stopped = threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self.stopped.wait(RELOAD_INTERVAL):
            self.count += 1
            fresh = self._config.with_suffix(".new")
            fresh.write_text(make_config(self.count))
            os.replace(fresh, self._config)
            os.kill(self._process.pids()[0], signal.SIGHUP)


def resource_usage(process: processes.Process) -> tuple[float, int]:
    """Resident memory in MB, and descriptors."""
    return process.resident_bytes() / (1 << 20), process.fd_count()


def run(process: processes.Process, config: Path, seconds: int) -> None:
    load = WORKLOADS[1]
    # What is needed once is not what is looked for here.
    warm = Reloader(process, config)
    warm.start()
    load.run(PORT, 10, config.parent)
    warm.stopped.set()
    warm.join()
    time.sleep(3)
    before = resource_usage(process)
    reloads = Reloader(process, config)
    reloads.count = warm.count
    reloads.start()
    result = load.run(PORT, seconds, config.parent)
    reloads.stopped.set()
    reloads.join()
    time.sleep(3)
    process.ensure_running()
    after = resource_usage(process)
    log = (config.parent / "log.txt").read_text()
    refused = log.count("reload rejected")
    print(
        f"{result.requests} requests, {result.failed} failed; "
        f"{reloads.count - warm.count} reloads, {refused} refused; p99 {result.latency_p99:.1f} ms"
    )
    print(
        f"resident {before[0]:.2f} -> {after[0]:.2f} MB, descriptors {before[1]} -> {after[1]}; "
        f"{log.count('Traceback')} tracebacks"
    )
    if result.failed or refused or "Traceback" in log:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server_home, home = folder / "backend", folder / "proxy"
        server_home.mkdir()
        home.mkdir()
        config = home / "config.toml"
        config.write_text(make_config(0))
        server = processes.start_backend(server_home)
        command = [sys.executable, "-m", "balancebeam", "--config", str(config)]
        process = processes.Process(command, processes.PROXY_CORE, home)
        try:
            processes.wait_for_port(PORT)
            run(process, config, options.seconds)
        finally:
            process.stop()
            server.stop()


if __name__ == "__main__":
    main()
