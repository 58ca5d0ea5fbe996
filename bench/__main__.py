"""
Benchmark of balancebeam and comparable proxies: `python -m bench`.

nginx is the upstream server. Each proxy runs alone on one core, and the load
generator and the server share the other. Rounds are interleaved and medians
are reported, because the speed of a machine drifts. Proxies and load
generators that are not installed are skipped and listed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import http2_peers, peers
from bench.load_generator import InvalidRunError
from bench.workloads import WORKLOADS, Workload

Row = dict[str, Any]

# With rate limits, which is other work than that of the rest, so --peers selects it.
OPTIONAL_PEERS = ("balancebeam-limited",)

# Measured without TLS in the workloads of TLS: the cost of TLS is the difference of two ratios of
# the same run.
PLAIN_PEERS = ("balancebeam", "nginx", "haproxy")

# Suffix of the names of the proxies that proxies of a kind are compared with.
REFERENCE_SUFFIX = {
    "http": "",
    "tls": "-tls",
    "h2": "-h2",
    "h2-tls": "-h2-tls",
    "grpc": "-grpc",
    "tcp": "-tcp",
}
REFERENCES = ("nginx", "haproxy")


def all_peers() -> dict[str, peers.Peer]:
    """Return all proxies by name."""
    return {**peers.all_peers(), **http2_peers.all_peers()}


def measure(peer: peers.Peer, workload: Workload, seconds: int, folder: Path) -> Row:
    """
    Measure one run of `workload` through `peer`.

    Args:
        seconds: length of the run; a warm-up of a quarter of it, at least 1 s, comes first.
        folder: parent of the working directory of the proxy; also for the load generator.

    Returns:
        One figure for each column of the report.

    Raises:
        RuntimeError: the proxy ended, or the load generator failed.
        InvalidRunError: the load differed from the workload.
    """
    process = peer.start(folder)
    try:
        tls = peer.kind in ("tls", "h2-tls")
        workload.run(peer.port, max(1, seconds // 4), folder, tls)
        cpu_before, queued_before = process.cpu_seconds(), process.queued_seconds()
        started_at = time.monotonic()
        result = workload.run(peer.port, seconds, folder, tls)
        elapsed = time.monotonic() - started_at
        cpu = process.cpu_seconds() - cpu_before
        queued = process.queued_seconds() - queued_before
        return {
            "requests_per_second": result.requests / result.seconds,
            "cpu_us_per_request": cpu / result.requests * 1e6,
            "cpu_us_per_mb": cpu / result.bytes_read * (1 << 20) * 1e6
            if result.bytes_read
            else 0.0,
            "busy_percent": (cpu + queued) / elapsed * 100,
            "queued_percent": queued / elapsed * 100,
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


def suits(peer: peers.Peer, workload: Workload) -> bool:
    """Return whether `peer` can serve the requests of `workload`."""
    if workload.protocol != "http/1.1":
        return peer.kind == (f"{workload.protocol}-tls" if workload.tls else workload.protocol)
    return peer.kind in ("http", "tcp", *(["tls"] if workload.tls else []))


def select_peers(workload: Workload, names: str | None) -> list[peers.Peer]:
    """
    Return the proxies to measure under `workload`.

    Args:
        names: the option `--peers`. By default all proxies with the protocol of the
            workload, and in the workloads of TLS some without for comparison.
    """
    available = all_peers()
    if names is not None:
        return [peer for name in names.split(",") if suits(peer := available[name], workload)]
    return [
        peer
        for peer in available.values()
        if suits(peer, workload)
        and peer.kind != "tcp"
        and peer.name not in OPTIONAL_PEERS
        and (peer.kind != "http" or not workload.tls or peer.name in PLAIN_PEERS)
    ]


def select_workloads(names: str) -> list[Workload]:
    """Return the workloads with these names; `h2` selects all whose names begin with `h2-`."""
    return [
        workload
        for workload in WORKLOADS
        if any(f"{workload.name}-".startswith(f"{name}-") for name in names.split(","))
    ]


def report_missing(selection: dict[Workload, list[peers.Peer]]) -> None:
    """Print the selected proxies and workloads whose programs are not installed."""
    for peer in dict.fromkeys(peer for selected in selection.values() for peer in selected):
        if not peer.installed:
            print(f"skipped {peer.name}: {peer.program} is not installed")
    for workload in selection:
        if workload.missing:
            print(f"skipped {workload.name}: {workload.missing} is not installed")


def main() -> None:
    """Run the selected workloads through the selected proxies and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run in seconds")
    parser.add_argument("--rounds", type=int, default=3, help="number of interleaved rounds")
    parser.add_argument(
        "--loads",
        default="small,browser,large,steady",
        help="workloads, separated by commas; `tls` and `h2` select all of TLS and of HTTP/2",
    )
    parser.add_argument("--peers", help="proxies, separated by commas")
    parser.add_argument("--json", type=Path, help="file to write the figures to as JSON")
    options = parser.parse_args()

    workloads = select_workloads(options.loads)
    selection = {workload: select_peers(workload, options.peers) for workload in workloads}
    report_missing(selection)
    if not all_peers()["nginx"].installed:
        sys.exit("nginx is not installed: it is the upstream server of every benchmark")
    rows: dict[str, dict[str, list[Row]]] = {}
    invalid = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server_home = folder / "backend"
        server_home.mkdir()
        folder.chmod(0o755)
        with contextlib.ExitStack() as servers:
            servers.callback(peers.start_backend(server_home).stop)
            if any(workload.protocol == "grpc" and not workload.missing for workload in workloads):
                servers.callback(http2_peers.start_grpc_backend(server_home).stop)
            for workload in (workload for workload in workloads if not workload.missing):
                for _ in range(options.rounds):
                    for peer in (peer for peer in selection[workload] if peer.installed):
                        try:
                            row = measure(peer, workload, options.seconds, folder)
                        except (RuntimeError, TimeoutError) as error:
                            print(f"skipped {peer.name} under {workload.name}: {error}")
                            continue
                        except InvalidRunError as error:
                            invalid.append(f"invalid run of {peer.name}, {workload.name}: {error}")
                            continue
                        rows.setdefault(workload.name, {}).setdefault(peer.name, []).append(row)
    figures = {
        workload: {peer: medians(runs) for peer, runs in by_peer.items()}
        for workload, by_peer in rows.items()
    }
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if invalid:
        sys.exit("\n".join(invalid))


def ratios(by_peer: dict[str, Row], peer: str, reference: str, columns: list[str]) -> list[float]:
    """
    Return figures of `peer` divided by the same figures of a reference.

    Args:
        reference: `nginx` or `haproxy`; a proxy with TLS or in TCP mode is divided
            by the reference with TLS or in TCP mode.

    Returns:
        No ratios if the reference was not measured, or has no figures.
    """
    kind = all_peers()[peer].kind
    reference_row = by_peer.get(reference + REFERENCE_SUFFIX[kind], {})
    return [
        by_peer[peer][name] / reference_row[name] for name in columns if reference_row.get(name)
    ]


def report(figures: dict[str, dict[str, Row]]) -> None:
    """Print a table for each workload, with ratios to nginx and HAProxy."""
    for workload, by_peer in figures.items():
        cpu_column = "cpu_us_per_mb" if workload.endswith("large") else "cpu_us_per_request"
        columns = [cpu_column, "p50_ms", "p99_ms"]
        print(f"\n{workload}")
        print(
            f"{'proxy':22}{'req/s':>9}{'CPU us':>9}{'p50 ms':>9}{'p99 ms':>9}{'MB/s':>8}"
            f"{'MB res':>8}{'busy %':>8}{'queued':>8}{'failed':>8}"
            + "".join(f"  {'CPU, p50, p99 / ' + name:24}" for name in REFERENCES).rstrip()
        )
        for peer, row in by_peer.items():
            compared = "".join(
                f"  {'  '.join(f'{r:.2f}' for r in ratios(by_peer, peer, name, columns)):24}"
                for name in REFERENCES
            )
            print(
                f"{peer:22}{row['requests_per_second']:9.0f}{row[cpu_column]:9.1f}{row['p50_ms']:9.2f}"
                f"{row['p99_ms']:9.2f}{row['mb_per_second']:8.0f}{row['resident_mb']:8.1f}"
                f"{row['busy_percent']:8.0f}{row['queued_percent']:8.0f}"
                f"{row['failed']:8.0f}{compared}".rstrip()
            )
        report_tls_difference(by_peer, cpu_column)


def report_tls_difference(by_peer: dict[str, Row], column: str) -> None:
    """Print the CPU ratios of balancebeam with and without TLS, when both were measured."""
    for peer in (p for p in by_peer if f"{p}-tls" in by_peer and p not in REFERENCES):
        for reference in REFERENCES:
            plain = ratios(by_peer, peer, reference, [column])
            tls = ratios(by_peer, f"{peer}-tls", reference, [column])
            if plain and tls:
                print(
                    f"CPU of {peer} / {reference}: {plain[0]:.2f} without TLS, "
                    f"{tls[0]:.2f} with TLS, difference {tls[0] - plain[0]:+.2f}"
                )


if __name__ == "__main__":
    main()
