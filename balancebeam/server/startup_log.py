"""
Log lines about listeners, at start and after a reload.

    listening on http://0.0.0.0:1100 -> pool app (3 servers, round-robin)
    listening on tcp://0.0.0.0:5432 (PROXY protocol) -> pool db (2 servers, least-connections)
    listening on unix:/run/s (http) -> pool app (1 server, random) and 1 route (pool api)
    listening on https://0.0.0.0:443 -> pool app (3 servers, round-robin)
    listening on http://0.0.0.0:80 -> redirect to https
    listening on http://127.0.0.1:1101 -> admin API
    try: curl http://localhost:1100/
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from twisted.logger import Logger

from balancebeam.core.addresses import (
    ListenAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import FrontendSettings, FrontendTlsSettings
from balancebeam.server.listeners import BindAddress, bind_address
from balancebeam.server.service_tree import ServiceTree

log = Logger()

# Addresses that accept connections on every interface, "localhost" among them.
_WILDCARDS = ("0.0.0.0", "::")


def log_listeners(tree: ServiceTree, addresses: Collection[BindAddress]) -> None:
    """Log one line for each open listener at `addresses`: its URL and its target."""
    for address, scheme, target in _targets(tree):
        if bind_address(address) in addresses:
            log.info(
                "listening on {address} -> {target}",
                address=_describe_address(tree.listeners.with_real_port(address), scheme),
                target=target,
            )


def log_demo_command(tree: ServiceTree) -> None:
    """Log a command that sends a request to the first listener that forwards it."""
    for frontend in tree.settings.frontends:
        if frontend.redirect_https:
            continue
        for address in frontend.bind:
            command = curl_command(tree.listeners.with_real_port(address), frontend.tls)
            if command is not None:
                log.info("try: {command}", command=command)
                return


def _targets(tree: ServiceTree) -> Iterator[tuple[ListenAddress, str, str]]:
    """The address, URL scheme and target of every configured listener."""
    for frontend in tree.settings.frontends:
        for address in frontend.bind:
            yield address, _scheme(frontend), _describe_target(tree, frontend)
    if tree.settings.admin is not None:
        yield tree.settings.admin.bind, "http", "admin API"


def _scheme(frontend: FrontendSettings) -> str:
    """The URL scheme of the frontend's listeners."""
    if frontend.tls is None:
        return frontend.mode
    return "https" if frontend.mode == "http" else "tls"


def _describe_target(tree: ServiceTree, frontend: FrontendSettings) -> str:
    """The pool of a frontend with its servers and algorithm, and the pools of its routes."""
    if frontend.redirect_https:
        return "redirect to https"
    pool = tree.pools[frontend.pool]
    servers = _count(len(pool.server_set.servers), "server")
    text = f"pool {frontend.pool} ({servers}, {pool.settings.algorithm})"
    if frontend.routes:
        names = list(dict.fromkeys(route.pool for route in frontend.routes))
        pools = f"{'pool' if len(names) == 1 else 'pools'} {', '.join(names)}"
        text += f" and {_count(len(frontend.routes), 'route')} ({pools})"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _describe_address(address: ListenAddress, scheme: str) -> str:
    """A URL; for Unix sockets and endpoint descriptions, the text of the address and the scheme."""
    notes = []
    if isinstance(address, ProxyProtocolAddress):
        notes.append("PROXY protocol")
        address = address.address
    if isinstance(address, TcpAddress):
        text = f"{scheme}://{address}"
    else:
        text = str(address)
        notes.insert(0, scheme)
    return f"{text} ({', '.join(notes)})" if notes else text


def curl_command(address: ListenAddress, tls: FrontendTlsSettings | None) -> str | None:
    """
    A curl command for `address`.

    `None` for endpoint descriptions, which do not show an address, and for the PROXY
    protocol, which needs a proxy in front.
    """
    command = "curl"
    if tls is not None and (tls.self_signed or not tls.certificates):
        # No CA has signed the certificate for localhost, also not with ACME.
        command += " -k"
    scheme = "http" if tls is None else "https"
    if isinstance(address, TcpAddress):
        host = "localhost" if address.host in _WILDCARDS else address.host
        return f"{command} {scheme}://{TcpAddress(host, address.port)}/"
    if isinstance(address, UnixAddress):
        return f"{command} --unix-socket {address.path} {scheme}://localhost/"
    return None
