"""What all load generators have in common: their result, and their core."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

from attrs import frozen

from bench.peers import LOAD_CORE


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


def run_pinned(command: list[str], timeout: float) -> str:
    """
    Return the output of `command`, run on the core of the load generator.

    Raises:
        RuntimeError: the command failed, or did not exit within `timeout` seconds.
    """
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


def run_together(commands: list[list[str]], timeout: float) -> list[str]:
    """Return the output of commands that run at the same time; otherwise as `run_pinned`."""
    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(lambda command: run_pinned(command, timeout), commands))
