"""
Benchmark of balancebeam and comparable proxies: `python -m bench`.

nginx is the upstream server. Each proxy runs alone on one core, and the load
generator and the server share the other. Rounds are interleaved and medians
are reported, because the speed of a machine drifts. Proxies and load
generators that are not installed are skipped and listed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import peers
from bench.workloads import WORKLOADS, Workload

Row = dict[str, Any]

# With rate limits, or in TCP mode: these do other work than the rest, so --peers selects them.
OPTIONAL_PEERS = ("balancebeam-limited", "balancebeam-tcp", "haproxy-tcp", "portforward")


def measure(peer: peers.Peer, workload: Workload, seconds: int, folder: Path) -> Row:
    """
    Measure one run of `workload` through `peer`.

    Args:
        seconds: length of the run; a warm-up of a quarter of it, at least 1 s, comes first.
        folder: parent of the working directory of the proxy.

    Returns:
        One figure for each column of the report.

    Raises:
        RuntimeError: the proxy ended, or the load generator failed.
    """
    home = Path(tempfile.mkdtemp(dir=folder))
    process = peers.Process(peer.command(home, peer.port), peers.PROXY_CORE, home)
    try:
        peers.wait_for_port(peer.port)
        process.ensure_running()
        workload.run(peer.port, max(1, seconds // 4), home)
        cpu_before = process.cpu_seconds()
        result = workload.run(peer.port, seconds, home)
        cpu = process.cpu_seconds() - cpu_before
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
    """Return the median of each column over the rounds, but the sum of `failed`."""
    result = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    result["failed"] = sum(row["failed"] for row in rows)
    return result


def main() -> None:
    """Run the selected workloads through the selected proxies and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    available = peers.all_peers()
    parser.add_argument("--seconds", type=int, default=5, help="length of one run in seconds")
    parser.add_argument("--rounds", type=int, default=3, help="number of interleaved rounds")
    parser.add_argument(
        "--loads", default="small,browser,large,steady", help="workloads, separated by commas"
    )
    parser.add_argument(
        "--peers",
        default=",".join(name for name in available if name not in OPTIONAL_PEERS),
        help="proxies, separated by commas",
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to as JSON")
    options = parser.parse_args()

    selected = [available[name] for name in options.peers.split(",")]
    workloads = [workload for workload in WORKLOADS if workload.name in options.loads.split(",")]
    missing = {peer.name: peer.program for peer in selected if not peer.installed}
    missing.update({w.name: w.program for w in workloads if not w.installed})
    for name, program in missing.items():
        print(f"skipped {name}: {program} is not installed")
    if not available["nginx"].installed:
        sys.exit("nginx is not installed: it is the upstream server of every benchmark")
    selected = [peer for peer in selected if peer.installed]
    rows: dict[str, dict[str, list[Row]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server_home = folder / "backend"
        server_home.mkdir()
        folder.chmod(0o755)
        server = peers.start_backend(server_home)
        try:
            for workload in (workload for workload in workloads if workload.installed):
                for _ in range(options.rounds):
                    for peer in selected:
                        try:
                            row = measure(peer, workload, options.seconds, folder)
                        except RuntimeError as error:
                            print(f"skipped {peer.name} under {workload.name}: {error}")
                            continue
                        rows.setdefault(workload.name, {}).setdefault(peer.name, []).append(row)
        finally:
            server.stop()
    figures = {
        workload: {peer: medians(runs) for peer, runs in by_peer.items()}
        for workload, by_peer in rows.items()
    }
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def report(figures: dict[str, dict[str, Row]]) -> None:
    """Print a table for each workload, with ratios to nginx, or to HAProxy in TCP mode."""
    for workload, by_peer in figures.items():
        cpu_column = "cpu_us_per_mb" if workload == "large" else "cpu_us_per_request"
        reference = next((name for name in ("nginx", "haproxy-tcp") if name in by_peer), "")
        reference_row = by_peer.get(reference, {})
        print(f"\n{workload}")
        print(
            f"{'proxy':22}{'req/s':>9}{'CPU us':>9}{'p50 ms':>9}{'p99 ms':>9}"
            f"{'MB/s':>8}{'MB res':>8}{'failed':>8}  CPU, p50, p99 / {reference}"
        )
        for peer, row in by_peer.items():
            ratios = "  ".join(
                f"{row[column] / reference_row[column]:.2f}"
                for column in (cpu_column, "p50_ms", "p99_ms")
                if reference_row.get(column)
            )
            print(
                f"{peer:22}{row['requests_per_second']:9.0f}{row[cpu_column]:9.1f}{row['p50_ms']:9.2f}"
                f"{row['p99_ms']:9.2f}{row['mb_per_second']:8.0f}{row['resident_mb']:8.1f}"
                f"{row['failed']:8.0f}  {ratios}"
            )


if __name__ == "__main__":
    main()
