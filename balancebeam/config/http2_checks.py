"""
Rules of HTTP/2 and gRPC that concern several settings together.

As the others, they hold for the file alone and for the result of file and options; see
`cross_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from balancebeam.config.conflicts import HTTP_ONLY, Conflict, Keys
from balancebeam.config.source_map import Path
from balancebeam.core.settings import (
    HTTP2,
    FrontendSettings,
    HealthCheckSettings,
    PoolSettings,
    Settings,
)

_NOT_WITH_GRPC = "not available with grpc: expected only one of the two"


def find_http2_conflicts(settings: Settings, keys: Keys) -> Iterator[Conflict]:
    """Check the rules of HTTP/2 of all frontends and pools."""
    for number, frontend in enumerate(settings.frontends):
        yield from _check_h2c(number, frontend, keys)
    for number, pool in enumerate(settings.pools):
        if settings.pool_mode(pool.name) == "tcp":
            yield from _check_tcp_pool(number, pool, keys)
        elif pool.active is not None and pool.active.grpc is not None:
            yield from _check_grpc(number, pool, pool.active, keys)


def _check_h2c(number: int, frontend: FrontendSettings, keys: Keys) -> Iterator[Conflict]:
    """Report `h2c` with TLS. In TCP mode it is reported with the other keys of requests."""
    path: Path = ("frontend", number, "h2c")
    is_http = frontend.mode == "http" and not keys.is_invalid(("frontend", number, "mode"))
    if is_http and frontend.tls is not None and keys.is_set(path, frontend.h2c):
        yield Conflict(
            path, "not available with TLS, where ALPN selects the protocol: expected alpn in tls"
        )


def _check_tcp_pool(number: int, pool: PoolSettings, keys: Keys) -> Iterator[Conflict]:
    """Report protocols of requests in a pool of TCP frontends, which forward bytes unchanged."""
    path: Path = ("pool", number, "protocol")
    if keys.is_set(path, pool.protocol != PoolSettings().protocol):
        yield Conflict(path, HTTP_ONLY)
    for index, server in enumerate(pool.servers):
        if server.protocol is not None:
            yield Conflict(
                ("pool", number, "upstreams"),
                f"protocol of {server.address}: {HTTP_ONLY}",
                index,
            )
    path = ("pool", number, "health", "grpc")
    if pool.active is not None and keys.is_set(path, pool.active.grpc is not None):
        yield Conflict(path, HTTP_ONLY)


def _check_grpc(
    number: int, pool: PoolSettings, checks: HealthCheckSettings, keys: Keys
) -> Iterator[Conflict]:
    """Report checks by gRPC of servers without HTTP/2, and keys of checks by GET requests."""
    parent = ("pool", number, "health")
    defaults = HealthCheckSettings()
    path: Path = (*parent, "path")
    if keys.is_set(path, checks.path is not None):
        yield Conflict(path, _NOT_WITH_GRPC)
    path = (*parent, "status")
    if keys.is_set(path, checks.status != defaults.status):
        yield Conflict(path, _NOT_WITH_GRPC)
    if keys.is_invalid(("pool", number, "protocol")) or keys.is_invalid(
        ("pool", number, "upstreams")
    ):
        return
    # Registered servers have the protocol of the pool.
    others = [f" ({server.address})" for server in pool.servers if not pool.uses_http2(server)]
    if not pool.servers and pool.protocol != HTTP2:
        others = [""]
    if others:
        yield Conflict(
            (*parent, "grpc"),
            f'gRPC needs servers with HTTP/2{others[0]}: expected protocol = "h2" in the pool',
        )
