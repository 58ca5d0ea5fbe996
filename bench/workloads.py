"""Workloads: the requests of the clients, and the load generators that send them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import frozen

from bench.peers import LOAD_CORE

# A browser's request: the target and the Referer header change with every request.
_BROWSER_SCRIPT = """
local n = 0
local fields = {
  ["Host"] = "shop.example.org", ["Connection"] = "keep-alive",
  ["sec-ch-ua"] = '"Chromium";v="126", "Not.A/Brand";v="24"',
  ["sec-ch-ua-mobile"] = "?0", ["sec-ch-ua-platform"] = '"Linux"',
  ["Upgrade-Insecure-Requests"] = "1",
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 " ..
    "(KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9," ..
    "image/avif,image/webp,*/*;q=0.8",
  ["Sec-Fetch-Site"] = "same-origin", ["Sec-Fetch-Mode"] = "navigate",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Accept-Language"] = "en-GB,en;q=0.9,de;q=0.8",
}
request = function()
  n = n + 1
  fields["Referer"] = "https://shop.example.org/list?page=" .. n
  return wrk.format("GET", "/item/" .. n .. "?from=list", fields)
end
"""

# A new connection for every request.
_CLOSE_SCRIPT = 'wrk.headers["Connection"] = "close"'


# Source of the load generator of new connections; compiled for each run of the benchmark.
_CONNECTIONS_SOURCE = Path(__file__).with_name("tls_connections.c")

# Share of the handshakes that may be of the other kind, full or resumed. The first of a run is
# full, because it yields the first ticket.
_HANDSHAKE_TOLERANCE = 0.01


class InvalidRunError(Exception):
    """The load differed from the workload: the figures of the run have no meaning."""


@frozen
class Result:
    """
    Result of one run of a workload.

    Attributes:
        requests: number of completed requests.
        bytes_read: bytes received by the clients; 0 if the load generator does not count them.
        seconds: duration of the run.
        failed: responses without a 2xx or 3xx status, connection errors and timeouts, and
            TLS connections that `tls_connections.c` saw closed without close_notify.
        latency_p50: median latency in milliseconds.
        latency_p99: 99th percentile of the latency in milliseconds.
    """

    requests: int
    bytes_read: int
    seconds: float
    failed: int
    latency_p50: float
    latency_p99: float


@frozen
class Workload:
    """
    A workload: requests as fast as the proxy permits, or at a constant rate.

    Attributes:
        name: name for the option `--loads`.
        program: load generator: `wrk`, this interpreter for `bench.constant_rate`, `h2load`
            (a constant rate with less CPU time), or `cc` for `tls_connections.c`.
        connections: number of concurrent client connections.
        target: request target.
        script: Lua script for wrk.
        rate: requests per second of a constant rate; 0 for the other load generators.
        tls: whether proxies with TLS are measured; the others are measured without.
        handshakes: kind of all handshakes of `tls_connections.c`: `full` or `resumed`.
    """

    name: str
    program: str
    connections: int
    target: str = "/"
    script: str | None = None
    rate: int = 0
    tls: bool = False
    handshakes: str = ""

    @property
    def missing(self) -> str | None:
        """The program or header file that the load generator needs and that is not installed."""
        if shutil.which(self.program) is None:
            return self.program
        if self.handshakes:
            command = ["cc", "-fsyntax-only", "-include", "openssl/ssl.h", "-x", "c", "/dev/null"]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return "openssl/ssl.h (package libssl-dev)"
        return None

    def run(self, port: int, seconds: int, folder: Path, tls: bool = False) -> Result:
        """
        Send the workload's requests to `port` on this host for `seconds` seconds.

        Args:
            folder: receives the Lua script or the compiled load generator.
            tls: whether the proxy on `port` speaks TLS.

        Raises:
            RuntimeError: the load generator fails or gets no response.
            InvalidRunError: handshakes were not of the kind that the workload requires.
        """
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{self.target}"
        if self.program == "wrk":
            return self._run_wrk(url, seconds, folder)
        if self.program == "h2load":
            return self._run_h2load(url, seconds, folder)
        if self.handshakes:
            return self._run_connections(port, seconds, folder, tls)
        return self._run_constant_rate(port, seconds)

    def _run_wrk(self, url: str, seconds: int, folder: Path) -> Result:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--latency"]
        if self.script is not None:
            (folder / "load.lua").write_text(self.script)
            command += ["-s", str(folder / "load.lua")]
        output = _run_pinned([*command, url], 2 * seconds + 10)
        totals = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m), ([\d.]+)([KMGT]?)B read", output)
        if totals is None:
            raise RuntimeError(f"unexpected output of wrk: {output}")
        unit = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[totals[5]]
        bad_statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        failed = int(bad_statuses[1]) if bad_statuses else 0
        if errors:
            failed += sum(map(int, errors.groups()))
        return Result(
            requests=int(totals[1]),
            bytes_read=int(float(totals[4]) * unit),
            seconds=_milliseconds(totals[2], totals[3]) / 1000,
            failed=failed,
            latency_p50=_percentile(output, "50%"),
            latency_p99=_percentile(output, "99%"),
        )

    def _run_h2load(self, url: str, seconds: int, folder: Path) -> Result:
        log = folder / "h2load.log"
        log.unlink(missing_ok=True)
        # h2load sends a request on every connection at the same moment, so each tick is a burst of
        # as many requests as there are connections.
        command = ["h2load", "--h1", "-t1", f"-c{self.connections}", f"-D{seconds}"]
        command += [f"--rps={self.rate / self.connections:g}", f"--log-file={log}", url]
        output = _run_pinned(command, 2 * seconds + 10)
        # Columns: start of the request, status (-1 without a response), duration, both times in
        # microseconds.
        rows = [line.split() for line in log.read_text().splitlines()]
        latencies = sorted(int(row[2]) / 1000 for row in rows)
        if not latencies:
            raise RuntimeError(f"no response received: {output}")
        return Result(
            requests=len(latencies),
            bytes_read=0,
            seconds=seconds,
            failed=sum(not 200 <= int(row[1]) < 400 for row in rows),
            latency_p50=latencies[len(latencies) // 2],
            latency_p99=latencies[len(latencies) * 99 // 100],
        )

    def _run_connections(self, port: int, seconds: int, folder: Path, tls: bool) -> Result:
        program = folder / "tls_connections"
        if not program.exists():
            libraries = ("-lssl", "-lcrypto")
            _run_pinned(["cc", "-O2", "-o", str(program), str(_CONNECTIONS_SOURCE), *libraries], 60)
        kind = self.handshakes if tls else "plain"
        numbers = (port, seconds, self.connections)
        result = json.loads(_run_pinned([str(program), *map(str, numbers), kind], 2 * seconds + 10))
        count = result["connections"]
        if not count:
            raise RuntimeError("no response received")
        expected = count if kind == "resumed" else 0
        if abs(result["resumed"] - expected) > _HANDSHAKE_TOLERANCE * count:
            raise InvalidRunError(
                f"{result['resumed']} of {count} handshakes were resumed: expected {expected}"
            )
        return Result(
            requests=count,
            bytes_read=result["bytes"],
            seconds=result["seconds"],
            failed=result["failed"] + result["truncated"],
            latency_p50=result["p50"],
            latency_p99=result["p99"],
        )

    def _run_constant_rate(self, port: int, seconds: int) -> Result:
        numbers = (port, seconds, self.rate, self.connections)
        command = [sys.executable, "-m", "bench.constant_rate", *map(str, numbers)]
        output = _run_pinned(command, 2 * seconds + 10)
        result = json.loads(output)
        latencies = result["latencies"]
        if not latencies:
            raise RuntimeError("no response received")
        return Result(
            requests=len(latencies),
            bytes_read=0,
            seconds=seconds,
            failed=result["failed"],
            latency_p50=latencies[len(latencies) // 2],
            latency_p99=latencies[len(latencies) * 99 // 100],
        )


def _run_pinned(command: list[str], timeout: float) -> str:
    """Return the output of `command`, run on the core of the load generator."""
    try:
        completed = subprocess.run(
            ["taskset", "-c", str(LOAD_CORE), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} did not exit within {timeout:g} s") from None
    if completed.returncode:
        lines = (completed.stderr or completed.stdout).strip().splitlines()
        reason = lines[0] if lines else f"exit status {completed.returncode}"
        raise RuntimeError(f"{command[0]} failed: {reason}")
    return completed.stdout


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}[unit]


def _percentile(output: str, name: str) -> float:
    """Return a latency in milliseconds from the output of wrk; 0 if it has none."""
    match = re.search(rf"^\s+{name}\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    return _milliseconds(match[1], match[2]) if match else 0.0


WORKLOADS = (
    Workload("small", "wrk", 64),
    Workload("browser", "wrk", 64, script=_BROWSER_SCRIPT),
    Workload("large", "wrk", 16, target="/1m"),
    Workload("connections", "wrk", 64, script=_CLOSE_SCRIPT),
    Workload("steady", sys.executable, 100, rate=1000),
    Workload("tls-small", "wrk", 64, tls=True),
    Workload("tls-large", "wrk", 8, target="/1m", tls=True),
    Workload("tls-connections-full", "cc", 64, tls=True, handshakes="full"),
    Workload("tls-connections-resumed", "cc", 64, tls=True, handshakes="resumed"),
)
