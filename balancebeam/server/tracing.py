"""
Tracing of a balancer after a reload.

A reload calls `prepare_tracing`, which does everything that can fail, and `commit_tracing`.
"""

from __future__ import annotations

from functools import partial
from random import Random

from balancebeam.core.settings import Settings
from balancebeam.observability.trace_export import load_exporter
from balancebeam.observability.tracing import TracingService
from balancebeam.server.service_tree import ServiceTree


def prepare_tracing(tree: ServiceTree, settings: Settings) -> TracingService | None:
    """
    Load the exporter. Nothing is active yet, and no rollback is needed.

    Returns:
        The argument of `commit_tracing`: the present service if its settings are unchanged, a
        new one, or `None` without tracing.

    Raises:
        ConfigError: the library is not installed, or rejects the settings.
    """
    tracing = settings.tracing
    if tracing is None:
        return None
    if tree.tracing is not None and tree.tracing.settings == tracing:
        return tree.tracing
    load_exporter(tracing)
    return TracingService(
        tracing,
        partial(load_exporter, tracing),
        tree.span_counts,
        tree.reactor,
        tree.ticker,
        # Ids are no secrets, and this generator, seeded by the system, costs a tenth of it.
        Random(),
    )


def commit_tracing(tree: ServiceTree, service: TracingService | None) -> None:
    """
    Activate the result of `prepare_tracing`.

    A service that is replaced sends its queue in the background. The requests that it traces
    have no spans if they end later; they are counted as lost.
    """
    if tree.tracing is service:
        return
    if tree.tracing is not None:
        tree.tracing.disownServiceParent()
    if service is not None:
        service.setServiceParent(tree)
    tree.tracing = service
