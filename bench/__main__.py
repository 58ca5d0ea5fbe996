"""
`python -m bench`: this project and its peers, side by side.

nginx is the server behind. Each proxy runs alone on one core, with the load
and the server on the other. Rounds are interleaved and medians are reported,
because machines drift. What is not installed is skipped and named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import processes
from bench.loads import WORKLOADS, Workload

Row = dict[str, Any]

# Peers with limits, or that pass bytes as they are: measured when they are asked for.
OPTIONAL_PEERS = ("balancebeam-limited", "balancebeam-tcp", "haproxy-tcp", "portforward")


def measure(peer: processes.Peer, load: Workload, seconds: int, folder: Path) -> Row:
    """One run of `load` through `peer`, after a warm-up of a quarter."""
    home = Path(tempfile.mkdtemp(dir=folder))
    process = processes.Process(peer.command(home, peer.port), processes.PROXY_CORE, home)
    try:
        processes.wait_for_port(peer.port)
        process.ensure_running()
        load.run(peer.port, max(1, seconds // 4), home)
        before = process.cpu_seconds()
        result = load.run(peer.port, seconds, home)
        cpu = process.cpu_seconds() - before
        return {
            "requests_per_second": result.requests / result.seconds,
            "cpu_us_per_request": cpu / result.requests * 1e6,
            "cpu_us_per_mb": cpu / result.bytes_read * (1 << 20) * 1e6
            if result.bytes_read
            else 0.0,
            "p50_ms": result.latency_p50,
            "p99_ms": result.latency_p99,
            "mb_per_second": result.bytes_read / result.seconds / (1 << 20),
            "resident_mb": process.resident_bytes() / (1 << 20),
            "failed": result.failed,
        }
    finally:
        process.stop()


def medians(rows: list[Row]) -> Row:
    """The median of each column; of `failed`, the sum."""
    result = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    result["failed"] = sum(row["failed"] for row in rows)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    every = processes.peers()
    parser.add_argument("--seconds", type=int, default=5, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, interleaved")
    parser.add_argument("--loads", default="small,browser,large,steady")
    parser.add_argument(
        "--peers", default=",".join(name for name in every if name not in OPTIONAL_PEERS)
    )
    parser.add_argument("--json", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()

    wanted = [every[name] for name in options.peers.split(",")]
    loads = [load for load in WORKLOADS if load.name in options.loads.split(",")]
    missing = {p.name: p.program for p in wanted if not p.installed}
    missing.update({load.name: load.program for load in loads if not load.installed})
    for name, program in missing.items():
        print(f"skipped: {name} (no {program})")
    if not processes.Peer("backend", "nginx", 0, processes.peers()["nginx"].command).installed:
        sys.exit("nginx is the server behind all others; install it first")
    wanted = [peer for peer in wanted if peer.installed]
    rows: dict[str, dict[str, list[Row]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server_home = folder / "backend"
        server_home.mkdir()
        folder.chmod(0o755)
        server = processes.start_backend(server_home)
        try:
            for load in (load for load in loads if load.installed):
                for _ in range(options.rounds):
                    for peer in wanted:
                        try:
                            row = measure(peer, load, options.seconds, folder)
                        except RuntimeError as error:
                            print(f"skipped: {peer.name} under {load.name}: {error}")
                            continue
                        rows.setdefault(load.name, {}).setdefault(peer.name, []).append(row)
        finally:
            server.stop()
    figures = {load: {peer: medians(r) for peer, r in by.items()} for load, by in rows.items()}
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def report(figures: dict[str, dict[str, Row]]) -> None:
    """Print a table for each load; the last column compares with nginx, or HAProxy for TCP."""
    for load, by in figures.items():
        unit = "cpu_us_per_mb" if load == "large" else "cpu_us_per_request"
        reference = next((name for name in ("nginx", "haproxy-tcp") if name in by), "")
        other = by.get(reference, {})
        print(f"\n{load}")
        print(
            f"{'proxy':22}{'req/s':>9}{'CPU us':>9}{'p50 ms':>9}{'p99 ms':>9}"
            f"{'MB/s':>8}{'MB res':>8}{'failed':>8}  CPU, p50, p99 / {reference}"
        )
        for peer, row in by.items():
            ratios = "  ".join(
                f"{row[column] / other[column]:.2f}"
                for column in (unit, "p50_ms", "p99_ms")
                if other.get(column)
            )
            print(
                f"{peer:22}{row['requests_per_second']:9.0f}{row[unit]:9.1f}{row['p50_ms']:9.2f}"
                f"{row['p99_ms']:9.2f}{row['mb_per_second']:8.0f}{row['resident_mb']:8.1f}"
                f"{row['failed']:8.0f}  {ratios}"
            )


if __name__ == "__main__":
    main()
