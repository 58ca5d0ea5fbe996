"""What the operating system says of this process, under the names that Prometheus gives it."""

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
    """Add what can be found out; without /proc that is less."""
    times = os.times()
    registry.counter("process_cpu_seconds_total", "CPU time spent, in seconds.").add(
        round(times.user + times.system, 3)
    )
    with contextlib.suppress(OSError):
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY:
            registry.gauge("process_max_fds", "Descriptors that may be open.").add(most)
    for name, text, value in _from_proc(proc):
        registry.gauge(name, text).add(value)


def _from_proc(proc: Path) -> Iterator[tuple[str, str, float]]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = (proc / "self/statm").read_text().split()
        page = os.sysconf("SC_PAGE_SIZE")
        yield "process_virtual_memory_bytes", "Virtual memory in bytes.", int(pages[0]) * page
        yield "process_resident_memory_bytes", "Resident memory in bytes.", int(pages[1]) * page
    with contextlib.suppress(OSError):
        # Listing the folder takes a descriptor too.
        count = len(os.listdir(proc / "self/fd")) - 1
        yield "process_open_fds", "Descriptors that are open.", count
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        began = _start_time(proc, os.getpid())
        yield "process_start_time_seconds", "When it started, in seconds since the epoch.", began


@lru_cache(maxsize=1)
def _start_time(proc: Path, process: int) -> float:
    """When `process` started, to hundredths of a second."""
    # The name of the program, which comes second, may hold anything.
    stat = (proc / str(process) / "stat").read_text().rpartition(")")[2].split()
    lines = (proc / "stat").read_text().splitlines()
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted + int(stat[19]) / os.sysconf("SC_CLK_TCK")
