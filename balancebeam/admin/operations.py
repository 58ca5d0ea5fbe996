"""Operations of the admin API: find, change, remove and register servers."""

from __future__ import annotations

from typing import Any, Callable, Optional

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from balancebeam.admin.interfaces import Balancer, Pool
from balancebeam.admin.parsing import AdminError, Registration, parse_change
from balancebeam.config.addresses import check_scheme, parse_server_url
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
            named = parse_server_url(address)
        except ValueError as error:
            raise AdminError(404, str(error)) from None
        server = pool.server_set.find(named.address)
        if server is None or (named.tls and not pool.uses_tls(server)):
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
            AdminError: The pool cannot have the server with or without TLS, or a reload removed
                the pool during the check.
        """
        candidate = registration.settings
        _check_tls(pool, candidate)
        unregistered = Server(candidate, ServerSource.REGISTERED)
        if unregistered.protocol is None:
            unregistered.protocol = pool.settings.protocol
        if pool.uses_tls(unregistered):
            pool.enable_tls()
        tls = pool.find_tls(pool.server_set.find(candidate.address) or unregistered)
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
        # Again, as another registration or a reload may have added the server during the check.
        _check_tls(pool, candidate)
        server = pool.server_set.find(candidate.address)
        if server is None:
            pool.server_set.add(candidate, ServerSource.REGISTERED)
        else:
            pool.health.set_weight(server, candidate.weight)
        self.log.info(
            "server {server} registered with weight {weight}",
            server=str(candidate.address),
            weight=candidate.weight,
        )
        await self.balancer.save()
        return {"server": registration.text, "weight": candidate.weight}


def _check_tls(pool: Pool, candidate: ServerSettings) -> None:
    """
    Check that a server can be registered with TLS, or without it.

    Raises:
        AdminError: The scheme is that of another mode, the name to verify is missing, or the pool
            has the address already, with TLS instead of without it or the reverse.
    """
    try:
        check_scheme(candidate, pool.mode)
    except ValueError as error:
        raise AdminError(400, f"address: {error}") from None
    settings = pool.settings
    if settings.lacks_server_name(candidate):
        raise AdminError(
            400, f"address: {candidate.address} has no name to verify: expected host:port"
        )
    server = pool.server_set.find(candidate.address)
    if server is not None:
        uses_tls = pool.uses_tls(server)
        if uses_tls != settings.uses_tls(candidate):
            present = "with" if uses_tls else "without"
            raise AdminError(
                400,
                f"address: pool {settings.name} has {candidate.address} {present} TLS: "
                "expected the same, or another address",
            )


def _registration_check(pool: Pool) -> HealthCheckSettings:
    """Return the health check that a server has to pass to be registered in `pool`."""
    checks = pool.settings.active or HealthCheckSettings(path=DEFAULT_HEALTH_PATH)
    if pool.mode == "tcp":
        return evolve(checks, path=None)
    if checks.grpc is not None:
        return checks
    # Registration requires a 2xx, whatever range the pool's own checks accept.
    return evolve(checks, path=checks.path or DEFAULT_HEALTH_PATH, status=(200, 299))
