"""
Settings written as a configuration file, for `--check` and `GET /config`.

The file has every key that has a value, defaults included. Loading it results in equal settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from balancebeam.config.addresses import tls_scheme
from balancebeam.core.settings import (
    AcmeSettings,
    AdminSettings,
    CertificateSource,
    FrontendSettings,
    FrontendTlsSettings,
    HealthCheckSettings,
    LimitSettings,
    PoolSettings,
    PoolTlsSettings,
    RouteSettings,
    ServerSettings,
    Settings,
)

# Replaces the token in masked output.
MASK = "********"


def dump(settings: Settings, mask: bool = False) -> str:
    """
    Return `settings` as TOML.

    Args:
        mask: whether to replace a token with `MASK`. Files and variables with tokens are named.
    """
    lines = list(
        _table(
            "",
            {
                "state": settings.state,
                "drain_timeout": settings.drain_timeout,
                "demo": settings.demo,
                "handover_timeout": settings.handover_timeout,
                "log_format": settings.log_format,
            },
        )
    )
    for frontend in settings.frontends:
        lines += _frontend(frontend)
    for pool in settings.pools:
        lines += _pool(pool, settings.pool_mode(pool.name))
    if settings.admin is not None:
        lines += _table("[admin]", _admin(settings.admin, mask))
    if settings.acme is not None:
        lines += _table("[acme]", _acme(settings.acme))
    return "\n".join(lines).lstrip("\n") + "\n"


def _frontend(frontend: FrontendSettings) -> Iterator[str]:
    tcp = frontend.mode == "tcp"
    yield from _table(
        "[[frontend]]",
        {
            "name": frontend.name,
            "bind": [str(address) for address in frontend.bind],
            "mode": frontend.mode,
            "pool": None if frontend.redirect_https else frontend.pool,
            "trusted_proxies": list(frontend.trusted_proxies),
            "max_body": frontend.max_body,
            "registration": None if tcp else frontend.registration,
            "registration_from": None if tcp else list(frontend.registration_from),
            "access_log": frontend.access_log,
            "access_log_format": frontend.access_log_format,
            "log_connections": frontend.log_connections if tcp else None,
            "allow": list(frontend.allow),
            "deny": list(frontend.deny),
            "max_connections": frontend.max_connections,
            "redirect_https": None if tcp else frontend.redirect_https,
            # A key that is not available must not be written, even with its default.
            "h2c": None if tcp or frontend.tls is not None else frontend.h2c,
        },
    )
    yield from _table(
        "[frontend.timeouts]",
        {
            "header": frontend.timeouts.header,
            "idle": frontend.timeouts.idle,
            "tunnel": frontend.timeouts.tunnel,
        },
    )
    if not tcp:
        yield from _table(
            "[frontend.forwarding]",
            {
                "x_forwarded": frontend.forwarding.x_forwarded,
                "forwarded": frontend.forwarding.forwarded,
                "request_id": frontend.forwarding.request_id,
                "via": frontend.forwarding.via,
            },
        )
    if frontend.tls is not None:
        yield from _table("[frontend.tls]", _frontend_tls(frontend.tls))
    for limit in frontend.limits:
        yield from _table("[[frontend.limit]]", _limit(limit))
    for route in frontend.routes:
        yield from _route(route)


def _frontend_tls(tls: FrontendTlsSettings) -> Mapping[str, Any]:
    return {
        "certificates": [_certificate(source) for source in tls.certificates],
        "acme": list(tls.acme),
        "self_signed": tls.self_signed,
        "min_version": tls.min_version,
        "ciphers": tls.ciphers,
        "alpn": None if tls.alpn is None else list(tls.alpn),
        "strict_sni": tls.strict_sni,
        "client_ca": tls.client_ca,
        "client_auth": None if tls.client_ca is None else tls.client_auth,
    }


def _certificate(source: CertificateSource) -> Any:
    return source.cert if source.key is None else {"cert": source.cert, "key": source.key}


def _route(route: RouteSettings) -> Iterator[str]:
    yield from _table(
        "[[frontend.route]]", {"host": route.host, "path": route.path, "pool": route.pool}
    )
    for limit in route.limits:
        yield from _table("[[frontend.route.limit]]", _limit(limit))


def _limit(limit: LimitSettings) -> Mapping[str, Any]:
    return {
        "name": limit.name,
        "algorithm": limit.algorithm,
        "requests": limit.requests,
        "per": limit.window,
        "burst": limit.burst,
        "key": list(limit.key),
        "ipv6_prefix": limit.ipv6_prefix,
        "dry_run": limit.dry_run,
        "status": limit.status,
        "message": limit.message,
    }


def _pool(pool: PoolSettings, mode: str) -> Iterator[str]:
    yield from _table(
        "[[pool]]",
        {
            "name": pool.name,
            "algorithm": pool.algorithm,
            "slow_start": pool.slow_start,
            "protocol": None if mode == "tcp" else pool.protocol,
            "upstreams": [_server(server, mode) for server in pool.servers],
        },
    )
    yield from _table(
        "[pool.timeouts]",
        {
            "connect": pool.timeouts.connect,
            "upstream": pool.timeouts.upstream,
        },
    )
    if pool.active is not None:
        yield from _table("[pool.health]", _health(pool.active))
    yield from _table(
        "[pool.passive]",
        {
            "failures": pool.passive.failures,
            "cooldown": pool.passive.cooldown,
            "error_ratio": pool.passive.error_ratio,
            "window": pool.passive.window,
            "min_requests": pool.passive.min_requests,
            "max_ejected_ratio": pool.passive.max_ejected_ratio,
            "bad_answers": pool.passive.bad_answers,
        },
    )
    yield from _table(
        "[pool.retries]",
        {
            "attempts": pool.retries.attempts,
            "budget": pool.retries.budget,
            "on": list(pool.retries.on),
        },
    )
    yield from _table("[pool.queue]", {"limit": pool.queue.limit, "timeout": pool.queue.timeout})
    if pool.tls is not None:
        yield from _table("[pool.tls]", _pool_tls(pool.tls))
    for limit in pool.limits:
        yield from _table("[[pool.limit]]", _limit(limit))


def _health(checks: HealthCheckSettings) -> Mapping[str, Any]:
    first, last = checks.status
    grpc = checks.grpc
    return {
        "path": checks.path,
        "interval": checks.interval,
        "timeout": checks.timeout,
        "fall": checks.fall,
        "rise": checks.rise,
        "status": f"{first}-{last}" if grpc is None else None,
        "grpc": grpc,
    }


def _pool_tls(tls: PoolTlsSettings) -> Mapping[str, Any]:
    return {
        "ca": tls.ca,
        "server_name": tls.server_name,
        "verify": tls.verify,
        "cert": tls.cert,
        "key": tls.key,
        "all_servers": tls.all_servers,
    }


def _server(server: ServerSettings, mode: str) -> Mapping[str, Any]:
    address = server.address.as_config()
    return {
        "address": f"{tls_scheme(mode)}://{server.address}" if server.tls else address,
        "weight": server.weight,
        "backup": server.backup,
        "max_in_flight": server.max_in_flight,
        "proxy": f"v{server.proxy_protocol}" if server.proxy_protocol else None,
        "protocol": server.protocol,
    }


def _admin(admin: AdminSettings, mask: bool) -> Mapping[str, Any]:
    token = admin.token
    content: dict[str, Any] = {"bind": str(admin.bind)}
    if token is not None and token.file is not None:
        content["token_file"] = token.file
    elif token is not None and token.variable is not None:
        content["token"] = {"env": token.variable}
    elif token is not None:
        content["token"] = MASK if mask else token.value
    return content


def _acme(acme: AcmeSettings) -> Mapping[str, Any]:
    return {
        "directory": acme.directory,
        "email": acme.email,
        "storage": acme.storage,
        "ca": acme.ca,
    }


def _table(header: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table; keys whose value is `None` are left out."""
    if header:
        yield ""
        yield header
    for key, value in content.items():
        if value is not None:
            yield f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    """Return a value as TOML: tables inline, and a list of tables with one line for each."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        # JSON strings are TOML strings, but for DEL, which only TOML requires to be escaped.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    elif isinstance(value, Mapping):
        pairs = (f"{key} = {_value(item)}" for key, item in value.items() if item is not None)
        text = f"{{{', '.join(pairs)}}}"
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        text = "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
    elif isinstance(value, list):
        text = f"[{', '.join(map(_value, value))}]"
    else:
        integral = isinstance(value, float) and value.is_integer()
        text = repr(int(value) if integral else value)
    return text
