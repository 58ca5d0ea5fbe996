"""Loads: what clients do, and how it is put upon a port."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from attrs import frozen

from bench.processes import OTHER_CORE

# A browser's request, of which the target and one field change every time.
_BROWSER = """
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


@frozen
class Result:
    """
    One run. `latency_p50` and `latency_p99` are in milliseconds, `seconds` is
    how long it lasted, `failed` counts what was not answered with 2xx.
    """

    requests: int
    octets: int
    seconds: float
    failed: int
    latency_p50: float
    latency_p99: float


@frozen
class Load:
    """
    A load: `small`, `browser`, `large` by wrk, as fast as it goes; `steady` by
    h2load, at 1,000 requests a second.
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

    def run(self, port: int, seconds: float, folder: Path) -> Result:
        """Put the load upon `port`. Raises `RuntimeError` if that failed."""
        url = f"http://127.0.0.1:{port}{self.target}"
        if self.program == "wrk":
            return self._wrk(url, seconds, folder)
        return self._h2load(url, seconds, folder)

    def _wrk(self, url: str, seconds: float, folder: Path) -> Result:
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds:g}s", "--latency"]
        if self.script is not None:
            (folder / "load.lua").write_text(self.script)
            command += ["-s", str(folder / "load.lua")]
        output = _run([*command, url], 2 * seconds + 10)
        done = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m), ([\d.]+)([KMGT]?)B read", output)
        if done is None:
            raise RuntimeError(f"wrk said: {output}")
        unit = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[done[5]]
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        return Result(
            requests=int(done[1]),
            octets=int(float(done[4]) * unit),
            seconds=_milliseconds(done[2], done[3]) / 1000,
            failed=(int(bad[1]) if bad else 0) + sum(map(int, errors.groups()) if errors else [0]),
            latency_p50=_percentile(output, "50%"),
            latency_p99=_percentile(output, "99%"),
        )

    def _h2load(self, url: str, seconds: float, folder: Path) -> Result:
        log = folder / "h2load.log"
        log.unlink(missing_ok=True)
        _run(
            [
                *("h2load", "--h1", "-t1", f"-c{self.connections}", f"-D{seconds:g}"),
                *(f"--rps={self.rate / self.connections:g}", f"--log-file={log}", url),
            ],
            2 * seconds + 10,
        )
        rows = [line.split() for line in log.read_text().splitlines()]
        taken = sorted(int(row[2]) / 1000 for row in rows)
        if not taken:
            raise RuntimeError("h2load made no request")
        return Result(
            requests=len(rows),
            octets=0,
            seconds=seconds,
            failed=sum(1 for row in rows if not row[1].startswith("2")),
            latency_p50=taken[len(taken) // 2],
            latency_p99=taken[len(taken) * 99 // 100],
        )


def _run(command: list[str], limit: float) -> str:
    try:
        done = subprocess.run(
            ["taskset", "-c", str(OTHER_CORE), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} did not end within {limit:g} s") from None
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}[unit]


def _percentile(output: str, which: str) -> float:
    found = re.search(rf"^\s+{which}\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    return _milliseconds(found[1], found[2]) if found else 0.0


LOADS = (
    Load("small", "wrk", 64),
    Load("browser", "wrk", 64, script=_BROWSER),
    Load("large", "wrk", 16, target="/1m"),
    Load("steady", "h2load", 100, rate=1000),
)
