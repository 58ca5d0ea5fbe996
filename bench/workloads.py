"""Workloads: the requests of the clients, and the load generators that send them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import frozen

from bench import h2load
from bench.load_generator import InvalidRunError, Result, run_pinned

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


@frozen
class Workload:
    """
    A workload: requests as fast as the proxy permits, or at a constant rate.

    Attributes:
        name: name for the option `--loads`.
        program: load generator: `wrk`, `h2load` (HTTP/2, or HTTP/1.1 at a constant rate), this
            interpreter for `bench.constant_rate`, or `cc` for `tls_connections.c`.
        connections: number of concurrent client connections.
        target: request target.
        script: Lua script for wrk.
        rate: requests per second of a constant rate; 0 for the other load generators.
        tls: whether proxies with TLS are measured; the others are measured without.
        handshakes: kind of all handshakes of `tls_connections.c`: `full`, `resumed`, or `plain`
            if there are none.
        protocol: `http/1.1`, `h2`, or `grpc` for gRPC calls.
        streams: concurrent requests on each connection with HTTP/2.
        browser: whether requests over HTTP/2 have the fields of a browser and new paths.
    """

    name: str
    program: str
    connections: int
    target: str = "/"
    script: str | None = None
    rate: int = 0
    tls: bool = False
    handshakes: str = ""
    protocol: str = "http/1.1"
    streams: int = 1
    browser: bool = False

    @property
    def missing(self) -> str | None:
        """The program or header file that the load generator needs and that is not installed."""
        programs = [self.program]
        if self.protocol == "grpc":
            programs += ["nghttpd", "nghttp"]
        for program in programs:
            if shutil.which(program) is None:
                return program
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
            if self.rate:
                return h2load.run_at_rate(url, seconds, folder, self.connections, self.rate)
            grpc = self.protocol == "grpc"
            sizes = (self.connections, self.streams)
            return h2load.run(url, seconds, folder, *sizes, browser=self.browser, grpc=grpc)
        if self.handshakes:
            return self._run_connections(port, seconds, folder, tls)
        return self._run_constant_rate(port, seconds)

    def _run_wrk(self, url: str, seconds: int, folder: Path) -> Result:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--latency"]
        if self.script is not None:
            (folder / "load.lua").write_text(self.script)
            command += ["-s", str(folder / "load.lua")]
        output = run_pinned([*command, url], 2 * seconds + 10)
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

    def _run_connections(self, port: int, seconds: int, folder: Path, tls: bool) -> Result:
        program = folder / "tls_connections"
        if not program.exists():
            libraries = ("-lssl", "-lcrypto")
            run_pinned(["cc", "-O2", "-o", str(program), str(_CONNECTIONS_SOURCE), *libraries], 60)
        kind = self.handshakes if tls else "plain"
        numbers = (port, seconds, self.connections)
        command = [str(program), *map(str, numbers), kind, self.protocol]
        result = json.loads(run_pinned(command, 2 * seconds + 10))
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
        output = run_pinned(command, 2 * seconds + 10)
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
    # Many requests on few connections, and one request at a time on each of many.
    Workload("h2-small-multiplexed", "h2load", 8, protocol="h2", streams=10),
    Workload("h2-small-single", "h2load", 64, protocol="h2"),
    Workload("h2-browser", "h2load", 8, protocol="h2", streams=10, browser=True),
    Workload("h2-large", "h2load", 8, target="/1m", protocol="h2", streams=4),
    Workload("h2-connections", "cc", 64, handshakes="plain", protocol="h2"),
    Workload("h2-tls-small-multiplexed", "h2load", 8, tls=True, protocol="h2", streams=10),
    Workload("h2-tls-small-single", "h2load", 64, tls=True, protocol="h2"),
    Workload("h2-tls-browser", "h2load", 8, tls=True, protocol="h2", streams=10, browser=True),
    Workload("h2-tls-large", "h2load", 8, target="/1m", tls=True, protocol="h2", streams=4),
    Workload("h2-tls-connections", "cc", 64, tls=True, handshakes="full", protocol="h2"),
    Workload("grpc", "h2load", 8, target=h2load.GRPC_PATH, protocol="grpc", streams=10),
)
