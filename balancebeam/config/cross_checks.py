"""What has to be true of all settings together, wherever they came from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import ip_address

from balancebeam.config.reader import Document
from balancebeam.config.secret_source import load_secret
from balancebeam.core.addresses import ListenAddress, ProxyProtocolAddress, TcpAddress, UnixAddress
from balancebeam.core.settings import AdminSettings, FrontendSettings, LimitSettings, Settings


def validate_settings(settings: Settings, document: Document | None = None) -> list[str]:
    """What is wrong with `settings`, which are from `document` in part, a line each."""
    problems = []
    dynamic = settings.admin is not None or any(one.registration for one in settings.frontends)
    places = document if document is not None and ("pool",) in document else None
    if dynamic:
        pass
    elif places is None and not settings.demo and not any(one.servers for one in settings.pools):
        problems.append("no server to balance over; give --upstream host:port (or --demo 3)")
    else:
        problems += _check_pools(settings, places)
    problems += _check_modes(settings)
    problems += _check_binds(settings)
    problems += _check_state(settings.state)
    return problems


def _check_state(path: str | None) -> list[str]:
    """A file that can never be written would only be noticed when it matters."""
    if path is None:
        return []
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        return [f"state: {path} is a folder; give the path of a file"]
    if not os.path.isdir(folder):
        return [f"state: there is no folder {folder}; make it, or give another path"]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [f"state: the folder {folder} cannot be written to; give another path"]
    return []


def _check_binds(settings: Settings) -> list[str]:
    """An address of the command line may be one of the file's."""
    admin = settings.admin
    taken = {str(address) for frontend in settings.frontends for address in frontend.bind}
    if admin is not None and str(admin.bind) in taken:
        return [f"admin: {admin.bind} is a frontend's already; give another address"]
    return []


def _check_pools(settings: Settings, document: Document | None) -> list[str]:
    first = settings.frontends[0].pool
    problems = []
    for number, pool in enumerate(settings.pools):
        if not pool.servers and not (settings.demo and pool.name == first):
            place = f"{document.location(('pool', number))}: " if document is not None else ""
            problems.append(f"{place}pool {pool.name}: has no upstreams; give one at least")
    return problems


def check_admin(admin: AdminSettings) -> tuple[str, str] | None:
    """What is wrong with `admin`: the key, and what it is."""
    if isinstance(admin.bind, ProxyProtocolAddress):
        return "bind", f"{admin.bind}: haproxy: is for frontends; give the address without it"
    token = admin.token
    if token is None:
        if is_local(admin.bind):
            return None
        return "bind", (
            f"{admin.bind} can be reached from elsewhere, so it needs a token; give token_file "
            "(--admin-token-file), or an address of this machine such as 127.0.0.1:1101"
        )
    try:
        load_secret(token)
    except ValueError as error:
        return "token_file" if token.file is not None else "token", str(error)
    return None


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
        if modes.get(one.name) == "tcp" and _uses_http_keys(one.limits):
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
    if _uses_http_keys(limits):
        problems.append(f'frontend {frontend.name}: in TCP mode limits have the key "client"')
    return problems


def _uses_http_keys(limits: Iterable[LimitSettings]) -> bool:
    return any(name != "client" for limit in limits for name in limit.key)
