"""Metrics of TLS handshakes with clients."""

from __future__ import annotations

from balancebeam.observability.interfaces import TlsStats
from balancebeam.observability.prometheus import MetricsRegistry


def add_tls_handshakes(registry: MetricsRegistry, frontend: str, tls: TlsStats) -> None:
    """Add the handshakes of one frontend, the completed and the failed ones."""
    completed = dict(tls.completed)
    if completed:
        family = registry.counter(
            "balancebeam_tls_handshakes_total",
            "Completed TLS handshakes.",
            *("frontend", "version", "resumed"),
        )
        for (version, resumed), count in sorted(completed.items()):
            family.add(count, frontend, version, "true" if resumed else "false")
    failed = dict(tls.failed)
    if failed:
        family = registry.counter(
            "balancebeam_tls_handshake_failures_total",
            "Failed TLS handshakes by reason.",
            *("frontend", "reason"),
        )
        for reason, count in sorted(failed.items()):
            family.add(count, frontend, reason)
