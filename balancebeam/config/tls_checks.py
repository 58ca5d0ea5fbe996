"""
Rules of TLS that concern several settings together.

As the others, they hold for the file alone and for the result of file and options; see
`cross_checks`. Whether certificate files can be read is not a rule of the settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from balancebeam.config.conflicts import Conflict, Keys
from balancebeam.config.reader import Document
from balancebeam.config.source_map import Path
from balancebeam.core.settings import (
    FrontendSettings,
    FrontendTlsSettings,
    PoolSettings,
    Settings,
)

# Application protocols that an HTTP frontend speaks.
_HTTP_PROTOCOLS = ("h2", "http/1.1")

_REDIRECT_ONLY = "not available with redirect_https, which answers every request with a redirect"


def find_tls_conflicts(settings: Settings, keys: Keys) -> Iterator[Conflict]:
    """Check the rules of TLS of all frontends and pools, and of redirects to `https`."""
    for number, frontend in enumerate(settings.frontends):
        if frontend.tls is not None:
            yield from _check_frontend_tls(number, frontend, frontend.tls, keys)
        if frontend.redirect_https:
            yield from _check_redirect(number, frontend, keys)
    for number, pool in enumerate(settings.pools):
        if pool.tls is not None:
            yield from _check_server_names(number, pool, keys)
    if settings.demo and settings.pools:
        yield from _check_demo(settings)


def _check_frontend_tls(
    number: int, frontend: FrontendSettings, tls: FrontendTlsSettings, keys: Keys
) -> Iterator[Conflict]:
    parent = ("frontend", number, "tls")
    path: Path = (*parent, "client_auth")
    is_set = keys.is_set(path, tls.client_auth != FrontendTlsSettings().client_auth)
    if is_set and tls.client_ca is None and not keys.is_invalid((*parent, "client_ca")):
        yield Conflict(path, "client_auth without CA certificates: expected client_ca too")
    path = (*parent, "alpn")
    if frontend.mode == "http" and not keys.is_invalid(("frontend", number, "mode")):
        others = [name for name in tls.alpn or () if name not in _HTTP_PROTOCOLS]
        if others:
            yield Conflict(
                path,
                f'invalid protocol {others[0]!r}: expected "h2" or "http/1.1" in mode "http"',
            )


def _check_redirect(number: int, frontend: FrontendSettings, keys: Keys) -> Iterator[Conflict]:
    """Report keys that a frontend with `redirect_https` does not use. Limits and lists it does."""
    parent = ("frontend", number)
    defaults = FrontendSettings()
    if frontend.tls is not None:
        yield Conflict((*parent, "tls"), f"{_REDIRECT_ONLY}: expected a frontend of its own")
    path: Path = (*parent, "pool")
    if keys.is_set(path, frontend.pool != defaults.pool):
        yield Conflict(path, f"{_REDIRECT_ONLY}: expected no pool")
    if frontend.routes:
        yield Conflict((*parent, "route"), f"{_REDIRECT_ONLY}: expected no routes")
    for key in ("registration", "registration_from"):
        if getattr(frontend, key):
            yield Conflict((*parent, key), f"{_REDIRECT_ONLY}: expected another frontend")


def _check_server_names(number: int, pool: PoolSettings, keys: Keys) -> Iterator[Conflict]:
    """Report Unix sockets, which have no host name, in a pool that verifies names."""
    path: Path = ("pool", number, "tls", "server_name")
    for server in pool.servers:
        if pool.lacks_server_name(server) and not keys.is_invalid(path):
            yield Conflict(
                path,
                f"missing server_name: expected the name to verify, as {server.address} has none",
            )
            return


def _check_demo(settings: Settings) -> Iterator[Conflict]:
    for pool in settings.pools:
        if pool.name == settings.default_pool and pool.tls is not None and pool.tls.all_servers:
            yield Conflict(
                ("demo",),
                f"demo servers have no TLS, but pool {pool.name!r} uses TLS for all servers: "
                "expected [pool.tls] with all_servers = false",
            )


def check_certificates(settings: Settings, document: Document | None) -> list[str]:
    """
    Check that frontends with TLS have a source of certificates.

    These are rules for the result of file and options only, as `--tls` adds certificates to
    `[frontend.tls]`, and `--acme` has a default account.

    Args:
        settings: complete settings, of the file and the options.
        document: the file, if any.

    Returns:
        One message for each mistake.
    """
    problems = []
    for number, frontend in enumerate(settings.frontends):
        tls = frontend.tls
        if tls is None:
            continue
        name = f"frontend {frontend.name}: tls"
        # A single table has no number.
        paths: tuple[Path, ...] = (("frontend", number, "tls"), ("frontend", "tls"))
        if document is not None:
            found = [document.location(path) for path in paths if path in document]
            name = f"{found[0]}: frontend.tls" if found else name
        if not (tls.certificates or tls.acme or tls.self_signed):
            problems.append(f"{name}: no certificates: expected certificates, acme or self_signed")
        if tls.acme and settings.acme is None:
            problems.append(
                f"{name}.acme: no ACME account: expected a table [acme] with storage, or --acme"
            )
    return problems
