"""Loads: what clients do, and how it is put upon a port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from attrs import frozen

from bench.processes import LOAD_CORE

# A browser's request, of which the target and one field change every time.
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

# A connection for every request.
_CLOSE_SCRIPT = 'wrk.headers["Connection"] = "close"'


@frozen
class Result:
    """
    One run. `latency_p50` and `latency_p99` are in milliseconds, `seconds` is
    how long it lasted, `failed` counts what was not answered with 2xx.
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
    A load: `small`, `browser`, `large` by wrk, as fast as it goes; `steady` at
    1,000 requests a second, evenly spread.
    """

    name: str
    program: str
    connections: int
    target: str = "/"
    script: str | None = None
    rate: int = 0

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None

    def run(self, port: int, seconds: int, folder: Path) -> Result:
        """Put the load upon `port`. Raises `RuntimeError` if that failed."""
        url = f"http://127.0.0.1:{port}{self.target}"
        if self.program == "wrk":
            return self._run_wrk(url, seconds, folder)
        return self._run_constant_rate(port, seconds)

    def _run_wrk(self, url: str, seconds: int, folder: Path) -> Result:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--latency"]
        if self.script is not None:
            (folder / "load.lua").write_text(self.script)
            command += ["-s", str(folder / "load.lua")]
        output = _run_pinned([*command, url], 2 * seconds + 10)
        done = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m), ([\d.]+)([KMGT]?)B read", output)
        if done is None:
            raise RuntimeError(f"wrk said: {output}")
        unit = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[done[5]]
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        return Result(
            requests=int(done[1]),
            bytes_read=int(float(done[4]) * unit),
            seconds=_milliseconds(done[2], done[3]) / 1000,
            failed=(int(bad[1]) if bad else 0) + sum(map(int, errors.groups()) if errors else [0]),
            latency_p50=_percentile(output, "50%"),
            latency_p99=_percentile(output, "99%"),
        )

    def _run_constant_rate(self, port: int, seconds: int) -> Result:
        arguments = (str(port), str(seconds), str(self.rate), str(self.connections))
        output = _run_pinned([sys.executable, "-m", "bench.steady", *arguments], 2 * seconds + 10)
        found = json.loads(output)
        taken = found["latencies"]
        if not taken:
            raise RuntimeError("no request was answered")
        return Result(
            requests=len(taken),
            bytes_read=0,
            seconds=seconds,
            failed=found["failed"],
            latency_p50=taken[len(taken) // 2],
            latency_p99=taken[len(taken) * 99 // 100],
        )


def _run_pinned(command: list[str], timeout: float) -> str:
    try:
        done = subprocess.run(
            ["taskset", "-c", str(LOAD_CORE), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} did not end within {timeout:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{command[0]} failed: {said[0] if said else done.returncode}")
    return done.stdout


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}[unit]


def _percentile(output: str, which: str) -> float:
    found = re.search(rf"^\s+{which}\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    return _milliseconds(found[1], found[2]) if found else 0.0


WORKLOADS = (
    Workload("small", "wrk", 64),
    Workload("browser", "wrk", 64, script=_BROWSER_SCRIPT),
    Workload("large", "wrk", 16, target="/1m"),
    Workload("connections", "wrk", 64, script=_CLOSE_SCRIPT),
    Workload("steady", sys.executable, 100, rate=1000),
)
