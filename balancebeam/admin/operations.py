"""Operations of the admin API: find, change, remove and register servers."""

from __future__ import annotations

from typing import Any, Callable, Optional

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from balancebeam.admin.interfaces import Balancer, Pool
from balancebeam.admin.parsing import AdminError, Registration, parse_change
from balancebeam.config.addresses import parse_server_address
from balancebeam.core.settings import (
    DEFAULT_HEALTH_PATH,
    HealthCheckSettings,
    ServerSettings,
    ServerSource,
)
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server

# Checks a server once, with or without TLS. The Deferred fails if the check does.
HealthCheck = Callable[[Server, HealthCheckSettings, Optional[ServerTls]], "Deferred[str]"]


class NotHealthy(Exception):
    """A server that failed the health check of its registration."""


class AdminOperations:
    """
    Changes servers of a running balancer, and saves each change to the state file.

    Attributes:
        balancer: The balancer.
    """

    log = Logger()

    def __init__(self, balancer: Balancer, check: HealthCheck) -> None:
        """
        Create the operations of `balancer`.

        Args:
            balancer: The balancer to change.
            check: Checks a server before it is registered.
        """
        self.balancer = balancer
        self._check = check
        self._pending_checks: set[Deferred[str]] = set()

    def stop(self) -> None:
        """Cancel the health checks in progress; their registrations fail."""
        for check in list(self._pending_checks):
            check.cancel()

    def pool(self, name: str) -> Pool:
        """Return the pool called `name`. Raises `AdminError` with status 404."""
        pool = self.balancer.pools.get(name)
        if pool is None:
            names = ", ".join(sorted(self.balancer.pools))
            raise AdminError(404, f"unknown pool {name!r}: expected one of {names}")
        return pool

    def server(self, pool: Pool, address: str) -> Server:
        """Return the server of `pool` at `address`. Raises `AdminError` with status 404."""
        try:
            server = pool.server_set.find(parse_server_address(address))
        except ValueError as error:
            raise AdminError(404, str(error)) from None
        if server is None:
            raise AdminError(404, f"pool {pool.settings.name} has no server {address}")
        return server

    async def change(self, pool: Pool, server: Server, changes: dict[str, Any]) -> None:
        """
        Set the weight of `server`, its admin state, or both.

        Args:
            pool: The pool of the server.
            server: The server to change.
            changes: The fields of the request; see `parse_change`.

        Raises:
            AdminError: `changes` is invalid. Nothing has been changed then.
        """
        change = parse_change(changes)
        if change.weight is not None:
            pool.health.set_weight(server, change.weight)
        if change.state is not None:
            pool.health.set_admin_state(server, change.state)
        self.log.info(
            "server {server} changed by the admin API: {changes}",
            server=server.name,
            changes=changes,
        )
        await self.balancer.save()

    async def remove(self, pool: Pool, server: Server) -> None:
        """Drain `server`, and remove it when its last request has finished."""
        pool.server_set.remove(server)
        self.log.info("server {server} removed by the admin API", server=server.name)
        await self.balancer.save()

    async def register(self, pool: Pool, registration: Registration) -> dict[str, Any]:
        """
        Check a server, and add it to `pool` or update its weight.

        Returns:
            The data of the response: the address as it was sent, and the weight.

        Raises:
            NotHealthy: The server failed its health check.
            AdminError: A reload removed the pool during the check.
        """
        candidate = ServerSettings(registration.address, registration.weight)
        unregistered = Server(candidate, ServerSource.REGISTERED)
        tls = pool.find_tls(pool.server_set.find(registration.address) or unregistered)
        check = self._check(unregistered, _registration_check(pool), tls)
        self._pending_checks.add(check)
        try:
            await check
        except Exception as error:
            self.log.info(
                "registration of {server} rejected: health check failed: {reason}",
                server=registration.text,
                reason=error,
            )
            # The text ends as that of the reference registration API.
            cause = f"{error}: " if str(error) else ""
            raise NotHealthy(
                f"{cause}{registration.text} not alive, registration failed."
            ) from None
        finally:
            self._pending_checks.discard(check)
        if self.balancer.pools.get(pool.settings.name) is not pool:
            raise AdminError(404, f"pool {pool.settings.name} no longer exists")
        server = pool.server_set.find(registration.address)
        if server is None:
            pool.server_set.add(candidate, ServerSource.REGISTERED)
        else:
            pool.health.set_weight(server, registration.weight)
        self.log.info(
            "server {server} registered with weight {weight}",
            server=str(registration.address),
            weight=registration.weight,
        )
        await self.balancer.save()
        return {"server": registration.text, "weight": registration.weight}


def _registration_check(pool: Pool) -> HealthCheckSettings:
    """Return the health check that a server has to pass to be registered in `pool`."""
    checks = pool.settings.active or HealthCheckSettings(path=DEFAULT_HEALTH_PATH)
    if pool.mode == "tcp":
        return evolve(checks, path=None)
    # Registration requires a 2xx, whatever range the pool's own checks accept.
    return evolve(checks, path=checks.path or DEFAULT_HEALTH_PATH, status=(200, 299))
