"""What an operator can do to servers while the balancer runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Callable
from typing import Protocol as Interface

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from balancebeam.config.addresses import parse_server_address
from balancebeam.core.addresses import ServerAddress
from balancebeam.core.settings import (
    AdminState,
    HealthCheckSettings,
    PoolSettings,
    ServerSettings,
    ServerSource,
    Settings,
)
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet

# What is asked of a server that registers, where the pool says nothing else.
DEFAULT_HEALTH_PATH = "/health"

MAX_WEIGHT = 256

# Characters. A name of DNS has 253, and there is a scheme and a port.
MAX_ADDRESS_LENGTH = 300


class Pool(Interface):
    """A pool, as far as the operator has to know it."""

    settings: PoolSettings
    mode: str
    server_set: ServerSet
    health: HealthService


class Balancer(Interface):
    """The balancer, as far as the operator has to know it."""

    settings: Settings
    draining: bool
    reactor: Any

    @property
    def pools(self) -> Mapping[str, Any]:
        """The pools by name."""

    @property
    def default_pool(self) -> Any:
        """Where servers register."""

    def save(self) -> Deferred[None]:
        """Have what was set at run time outlive a restart; never fails."""

    def reload(self) -> list[str]:
        """Read everything again; what has changed. Raises `ConfigError`."""


class AdminError(Exception):
    """A wish that is not granted: `status` is the answer's, `text` says what was wrong."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


@frozen
class Registration:
    """A server that wants traffic. `text` is its address as it wrote it."""

    text: str
    address: ServerAddress
    weight: int = 1


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises `AdminError`."""
    try:
        value = json.loads(
            body, parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_keys
        )
    except (ValueError, RecursionError) as error:
        why = "it nests too deep" if isinstance(error, RecursionError) else str(error)
        raise AdminError(400, f"the body is no JSON: {why}") from None
    if not isinstance(value, dict):
        raise AdminError(400, "the body is no JSON object")
    return value


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def parse_registration(body: bytes, unknown_field_status: int) -> Registration:
    """What S4's body says. Raises `AdminError`; unknown fields give `unknown_field_status`."""
    content = parse_object(body)
    for name in content:
        if name not in ("address", "weight"):
            raise AdminError(
                unknown_field_status, f"{name!r} is not known; there is address and weight"
            )
    text = content.get("address")
    if not isinstance(text, str):
        raise AdminError(400, 'address is missing; give one such as "http://127.0.0.1:1080"')
    text = text.strip()
    if len(text) > MAX_ADDRESS_LENGTH or not text.isprintable():
        raise AdminError(400, f"address: {text[:100]!r} is too long, or no text to be shown")
    try:
        address = parse_server_address(text)
    except ValueError as error:
        raise AdminError(400, f"address: {error}") from None
    return Registration(text, address, parse_weight(content.get("weight", 1)))


def parse_weight(value: Any) -> int:
    """A weight. Raises `AdminError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_WEIGHT:
        raise AdminError(400, f"weight: {value!r} is no whole number from 0 to {MAX_WEIGHT}"[:200])
    return value


class AdminOperations:
    """
    Does to the pools of `balancer` what somebody with the right to do so wants.

    `check(server, checks)` asks a server if it is well, and fails if it is not.
    """

    log = Logger()

    def __init__(
        self, balancer: Balancer, check: Callable[[Server, HealthCheckSettings], Deferred[str]]
    ) -> None:
        self.balancer = balancer
        self._check = check
        self._pending_checks: set[Deferred[str]] = set()

    def stop(self) -> None:
        """Ask no server any more; those that are being asked do not register."""
        for asking in list(self._pending_checks):
            asking.cancel()

    def pool(self, name: str) -> Pool:
        """The pool of that name. Raises `AdminError`."""
        found: Pool | None = self.balancer.pools.get(name)
        if found is None:
            known = ", ".join(sorted(self.balancer.pools))
            raise AdminError(404, f"there is no pool {name!r}; there is {known}")
        return found

    def server(self, pool: Pool, address: str) -> Server:
        """The server of `pool` at `address`. Raises `AdminError`."""
        try:
            found = pool.server_set.find(parse_server_address(address))
        except ValueError as error:
            raise AdminError(404, str(error)) from None
        if found is None:
            raise AdminError(404, f"pool {pool.settings.name} has no server {address}")
        return found

    async def change(self, pool: Pool, server: Server, changes: Mapping[str, Any]) -> None:
        """Give `server` another weight or state, or both or neither. Raises `AdminError`."""
        for name in changes:
            if name not in ("weight", "state"):
                raise AdminError(400, f"{name!r} is not known; there is weight and state")
        if not changes:
            raise AdminError(400, "there is nothing to change; give weight or state")
        weight = parse_weight(changes["weight"]) if "weight" in changes else None
        state = _parse_state(changes["state"]) if "state" in changes else None
        if weight is not None:
            pool.health.set_weight(server, weight)
        if state is not None:
            pool.health.set_admin_state(server, state)
        self.log.info(
            "the operator changed {server}: {changes}", server=server.name, changes=changes
        )
        await self.balancer.save()

    async def remove(self, pool: Pool, server: Server) -> None:
        """Give `server` nothing more, and forget it when it has nothing left to do."""
        pool.server_set.remove(server)
        self.log.info("the operator removed {server}", server=server.name)
        await self.balancer.save()

    async def register(self, pool: Pool, registration: Registration) -> dict[str, Any]:
        """
        Add a server that is alive to `pool`, or change its weight. What S4 says
        of it. Raises `AdminError`.
        """
        checks = pool.settings.active or HealthCheckSettings(path=DEFAULT_HEALTH_PATH)
        if pool.mode == "tcp":
            checks = evolve(checks, path=None)
        else:
            # S4 wants a 2xx, whatever the checks that come later want.
            checks = evolve(checks, path=checks.path or DEFAULT_HEALTH_PATH, status=(200, 299))
        candidate = ServerSettings(registration.address, registration.weight)
        asking = self._check(Server(candidate), checks)
        self._pending_checks.add(asking)
        try:
            await asking
        except Exception as error:
            self.log.info("{server} is not alive: {reason}", server=registration.text, reason=error)
            raise NotHealthy(f"{registration.text} not alive, registration failed.") from None
        finally:
            self._pending_checks.discard(asking)
        if self.balancer.pools.get(pool.settings.name) is not pool:
            raise AdminError(404, f"the pool {pool.settings.name} is no more")
        known = pool.server_set.find(registration.address)
        if known is None:
            pool.server_set.add(candidate, ServerSource.REGISTERED)
        else:
            pool.health.set_weight(known, registration.weight)
        self.log.info("{server} has registered", server=str(registration.address))
        await self.balancer.save()
        return {"server": registration.text, "weight": registration.weight}

    # What there is to see.

    def servers(self) -> list[dict[str, Any]]:
        """Every server of every pool."""
        return [
            self.describe(pool, server)
            for pool in self.balancer.pools.values()
            for server in (*pool.server_set.servers, *pool.server_set.draining)
        ]

    def describe(self, pool: Pool, server: Server) -> dict[str, Any]:
        """All that is known of `server`."""
        check = server.last_check
        return {
            "pool": pool.settings.name,
            "address": server.name,
            "weight": server.weight,
            "state": "draining" if server.removed else server.status,
            "reason": "it was removed" if server.removed else server.status_reason,
            "since": _format_time(server.status_since) if server.status_since else None,
            "in_flight": server.in_flight,
            "requests": server.total_requests,
            "failures": server.failed_requests,
            "backup": server.backup,
            "source": server.source.value,
            "last_check": None
            if check is None
            else {
                "time": _format_time(check.checked_at),
                "passed": check.passed,
                "reason": check.reason,
            },
        }


class NotHealthy(Exception):
    """A server that wants to register, but does not answer as it should."""


def _parse_state(value: Any) -> AdminState:
    for state in AdminState:
        if value == state.value:
            return state
    known = ", ".join(state.value for state in AdminState)
    raise AdminError(400, f"state: {value!r} is not known; give one of {known}"[:200])


def _format_time(seconds: float) -> str:
    """Seconds since the epoch in the form of RFC 3339."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
