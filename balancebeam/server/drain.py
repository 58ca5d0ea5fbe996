"""Graceful shutdown, and readiness."""

from __future__ import annotations

import math

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from balancebeam.server.service_tree import ServiceTree

log = Logger()


def start_drain(tree: ServiceTree, handing_over: bool = False) -> Deferred[None]:
    """See `BalancerService.drain`."""
    tree.draining = True
    # The admin API shows the progress, and answers to the end, unless the new
    # process of a hot restart serves it by now.
    admin = None if handing_over else tree.admin
    if tree.running:
        tree.listeners.activate({} if admin is None else admin.listeners(), {})
    if tree.admin is not None:
        tree.admin.drain(handing_over)
    for frontend in tree.frontends.values():
        frontend.drain()
    if tree.acme is not None:
        # The listeners serve no challenges any more; a new process orders what is missing.
        tree.acme.stopService()

    def finished(drained: bool) -> None:
        if not drained:
            log.warn(
                "{key} expired with active connections; closing them",
                key="handover timeout" if handing_over else "drain timeout",
            )

    timeout: float | None = tree.settings.drain_timeout
    if handing_over:
        timeout = tree.settings.handover_timeout
    waiting = tree.ticker.wait_for(
        lambda: _is_drained(tree), math.inf if timeout is None else timeout
    )
    return waiting.addCallback(finished)


def _is_drained(tree: ServiceTree) -> bool:
    """Whether no client is connected and no request is active."""
    if any(child.has_connections for child in (*tree.frontends.values(), *tree.retired)):
        return False
    # Requests of a twisted.web tree belong to no frontend.
    return not any(pool.has_active_requests for pool in tree.pools.values())


def not_ready_reason(tree: ServiceTree) -> str:
    """See `BalancerService.not_ready_reason`."""
    if tree.draining:
        return "draining"
    if not tree.running:
        return "not running"
    for frontend in tree.settings.frontends:
        if not frontend.redirect_https and not any(tree.pools[frontend.pool].server_set.tiers):
            return f"pool {frontend.pool} has no available server"
    return ""
