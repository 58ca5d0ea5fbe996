"""What has to be true of all settings together, wherever they came from."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from balancebeam.config.secrets import read_secret
from balancebeam.model import (
    FrontendSettings,
    LimitSettings,
    ListenAddress,
    Settings,
    TcpAddress,
    UnixAddress,
)


def check_whole(settings: Settings) -> list[str]:
    """What is wrong with `settings`, a line each."""
    problems = []
    dynamic = settings.admin is not None or any(one.registration for one in settings.frontends)
    if not any(pool.servers for pool in settings.pools) and not settings.demo and not dynamic:
        problems.append("no server to balance over; give --upstream host:port (or --demo 3)")
    else:
        problems += _empty_pools(settings, dynamic)
    problems += _check_admin(settings)
    problems += _check_modes(settings)
    return problems


def _empty_pools(settings: Settings, dynamic: bool) -> list[str]:
    first = settings.frontends[0].pool
    return [
        f"pool {pool.name}: has no upstreams; give one at least"
        for pool in settings.pools
        if not pool.servers and not dynamic and not (settings.demo and pool.name == first)
    ]


def _check_admin(settings: Settings) -> list[str]:
    admin = settings.admin
    if admin is None:
        return []
    if admin.token is None:
        if is_local(admin.bind):
            return []
        return [
            f"admin: {admin.bind} can be reached from elsewhere, so it needs a token; give "
            "token_file (--admin-token-file), or an address of this machine such as 127.0.0.1:1101"
        ]
    try:
        read_secret(admin.token)
    except ValueError as error:
        return [f"admin: {error}"]
    return []


def is_local(address: ListenAddress) -> bool:
    """Whether nobody but programs on this machine can connect to `address`."""
    if isinstance(address, UnixAddress):
        return True
    if not isinstance(address, TcpAddress):
        return False
    if address.host == "localhost":
        return True
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return False


def _check_modes(settings: Settings) -> list[str]:
    problems = []
    modes: dict[str, str] = {}
    for frontend in settings.frontends:
        for pool in (frontend.pool, *(route.pool for route in frontend.routes)):
            if modes.setdefault(pool, frontend.mode) != frontend.mode:
                problems.append(
                    f"pool {pool}: is for HTTP or for TCP, not for both; make two of it"
                )
        if frontend.mode == "tcp":
            problems += _check_tcp(frontend)
    for one in settings.pools:
        if modes.get(one.name) == "tcp" and _counts_more(one.limits):
            problems.append(f'pool {one.name}: in TCP mode limits have the key "client"')
    return problems


def _check_tcp(frontend: FrontendSettings) -> list[str]:
    """What means something for requests only; a file says so of its own, with the line."""
    usual = FrontendSettings()
    used = [
        key
        for key in ("max_body", "registration", "registration_from", "forwarding")
        if getattr(frontend, key) != getattr(usual, key)
    ]
    if any(route.path is not None for route in frontend.routes):
        used.append("a route's path")
    problems = [f"frontend {frontend.name}: {key} belongs to --mode http" for key in used]
    limits = [*frontend.limits, *(one for route in frontend.routes for one in route.limits)]
    if _counts_more(limits):
        problems.append(f'frontend {frontend.name}: in TCP mode limits have the key "client"')
    return problems


def _counts_more(limits: Iterable[LimitSettings]) -> bool:
    return any(name != "client" for limit in limits for name in limit.key)
