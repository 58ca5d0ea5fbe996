"""Options of TLS: certificates, ACME, redirects to `https`, and verification of servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Callable, ClassVar

from balancebeam.config.addresses import parse_bind_address
from balancebeam.config.overrides import Overrides
from balancebeam.config.tls import parse_acme_name, parse_certificate_option, parse_email
from balancebeam.config.values import file_path
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import Settings
from balancebeam.process.option_values import OptionValues
from balancebeam.tls.sources import check_frontends
from balancebeam.upstream.pool_tls import read_all_tls


class TlsOptions(OptionValues):
    """The options of TLS, on both sides."""

    optParameters: ClassVar[list[list[str | None]]] = [
        ["acme-email", None, None, "Contact address of the ACME account."],
        [
            "redirect-https",
            None,
            None,
            "Address to answer with redirects to https, such as 0.0.0.0:80.",
        ],
        ["upstream-ca", None, None, "CA certificates (PEM file) to verify servers with."],
    ]

    optFlags: ClassVar[list[list[str | None]]] = [
        ["tls-self-signed", None, "Enable TLS with a generated certificate for localhost."],
        ["upstream-insecure", None, "Do not verify the certificates of servers."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._certificates: list[str] = []
        self._acme_names: list[str] = []

    def opt_tls(self, certificate: str) -> None:
        """Enable TLS with this certificate: CERT[,KEY] (PEM files), or a directory."""
        self._certificates.append(certificate)

    def opt_acme(self, name: str) -> None:
        """Enable TLS with a certificate for this host name, obtained from Let's Encrypt."""
        self._acme_names.append(name)

    def _apply_tls_overrides(self, overrides: Overrides) -> None:
        """Apply the options of TLS, after the options that set addresses and servers."""
        self._apply_certificates(overrides)
        bind = self._parse_option("redirect-https", parse_bind_address)
        if bind is not None:
            overrides.add_redirect(bind)
        ca = self._parse_option("upstream-ca", file_path)
        if ca is not None or self["upstream-insecure"]:
            overrides.set_upstream_tls(ca, bool(self["upstream-insecure"]))

    def _apply_certificates(self, overrides: Overrides) -> None:
        sources = self._parse_values("tls", self._certificates, parse_certificate_option)
        names = self._parse_values("acme", self._acme_names, parse_acme_name)
        changes: dict[str, Any] = {}
        options = []
        if sources:
            options.append("--tls")
            changes["certificates"] = tuple(dict.fromkeys(sources))
        if names:
            options.append("--acme")
            changes["acme"] = tuple(dict.fromkeys(names))
        if self["tls-self-signed"]:
            options.append("--tls-self-signed")
            changes["self_signed"] = True
        if changes:
            overrides.set_tls(", ".join(options), **changes)
        email = self._parse_option("acme-email", parse_email)
        if names or email is not None:
            overrides.set_acme(bool(names), email, default_acme_storage(os.environ, os.geteuid()))


def default_acme_storage(environ: Mapping[str, str], user: int) -> str:
    """
    Return the directory of `--acme` without an `[acme]` table.

    Args:
        environ: the environment of the process.
        user: its effective user id; 0 is root.
    """
    if user == 0:
        return "/var/lib/balancebeam/acme"
    # XDG Base Directory Specification: a relative path is invalid and ignored.
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "balancebeam", "acme")


def check_tls_files(settings: Settings) -> list[str]:
    """
    Read the certificate, key and CA files of all frontends and pools.

    Returns:
        The warnings that a start logs.

    Raises:
        ConfigError: For each file that cannot be used.
    """
    problems: list[str] = []
    warnings: list[str] = []
    checks: tuple[Callable[[], list[str]], ...] = (
        lambda: check_frontends(settings.frontends),
        lambda: _check_pools(settings),
    )
    for check in checks:
        try:
            warnings += check()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return warnings


def _check_pools(settings: Settings) -> list[str]:
    """Read the files of pools; see `check_tls_files`."""
    pools = read_all_tls(settings.pools, {})
    return [
        f"pool {name}: tls: {warning}" for name, tls in pools.items() for warning in tls.warnings
    ]
