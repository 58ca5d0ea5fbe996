"""
Metrics of the process, under the standard names of Prometheus client libraries.

See https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from balancebeam.observability.prometheus import MetricsRegistry

_PROC = Path("/proc")


def add_process_metrics(registry: MetricsRegistry, proc: Path = _PROC) -> None:
    """
    Add the process metrics to `registry`.

    Args:
        registry: The metrics.
        proc: The mount point of procfs; metrics that need it are omitted without it.
    """
    times = os.times()
    registry.counter("process_cpu_seconds_total", "Total user and system CPU time in seconds.").add(
        round(times.user + times.system, 3)
    )
    with contextlib.suppress(OSError):
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY:
            registry.gauge("process_max_fds", "Maximum number of open file descriptors.").add(limit)
    for name, text, value in _from_proc(proc):
        registry.gauge(name, text).add(value)


def resident_bytes(proc: Path = _PROC) -> int | None:
    """Return the resident memory size in bytes; `None` without procfs."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def start_time(proc: Path = _PROC) -> float | None:
    """Return when the process started, in seconds since the epoch; `None` without procfs."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        return _start_time(proc, os.getpid())
    return None


def _from_proc(proc: Path) -> Iterator[tuple[str, str, float]]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = (proc / "self/statm").read_text().split()
        page = os.sysconf("SC_PAGE_SIZE")
        yield "process_virtual_memory_bytes", "Virtual memory size in bytes.", int(pages[0]) * page
        yield (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            int(pages[1]) * page,
        )
    with contextlib.suppress(OSError):
        # Less the descriptor of the directory that is being listed.
        count = len(os.listdir(proc / "self/fd")) - 1
        yield "process_open_fds", "Number of open file descriptors.", count
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        started_at = _start_time(proc, os.getpid())
        yield (
            "process_start_time_seconds",
            "Start time of the process in seconds since the epoch.",
            started_at,
        )


@lru_cache(maxsize=1)
def _start_time(proc: Path, process: int) -> float:
    """Return when the process with the id `process` started, in seconds since the epoch."""
    # proc_pid_stat(5): the second field, the name in parentheses, may contain spaces
    # and parentheses. `starttime` is field 22, in clock ticks since boot.
    stat = (proc / str(process) / "stat").read_text().rpartition(")")[2].split()
    lines = (proc / "stat").read_text().splitlines()
    booted_at = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted_at + int(stat[19]) / os.sysconf("SC_CLK_TCK")
