"""
The ACME service of a balancer: the names of its frontends, the account, and the challenges.

A reload calls `prepare_acme`, which does everything that can fail, and `commit_acme`.
"""

from __future__ import annotations

from attrs import frozen

from balancebeam import __version__
from balancebeam.acme.interfaces import HTTP_01, TLS_ALPN_01
from balancebeam.acme.loading import load_client
from balancebeam.acme.service import AcmeService
from balancebeam.acme.storage import Storage
from balancebeam.acme.threads import DaemonThreads
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import AcmeSettings, Settings
from balancebeam.server.service_tree import ServiceTree


@frozen
class PreparedAcme:
    """
    The ACME service after a reload.

    Attributes:
        service: the service; a new one unless the account is unchanged.
        names: the host names of all frontends that need certificates, in lower case.
        challenge_types: the types of challenges that the listeners serve.
    """

    service: AcmeService
    names: tuple[str, ...]
    challenge_types: tuple[str, ...]


def prepare_acme(tree: ServiceTree, settings: Settings) -> PreparedAcme | None:
    """
    Load the ACME client. Nothing is active yet, and no rollback is needed.

    Returns:
        The argument of `commit_acme`; `None` if no frontend has names for ACME.

    Raises:
        ConfigError: the libraries are not installed, or the account is invalid.
    """
    names = settings.acme_names
    if not names:
        return None
    if settings.acme is None:
        # The parsers of the file and the command line report this with the line of the key.
        frontend = next(item for item in settings.frontends if item.tls and item.tls.acme)
        raise ConfigError(
            f"frontend {frontend.name}: tls.acme: no ACME account: expected Settings.acme"
        )
    service = _build_service(tree, settings.acme)
    if tree.acme is not None and tree.settings.acme == settings.acme:
        service = tree.acme
    return PreparedAcme(service, names, challenge_types(settings))


def _build_service(tree: ServiceTree, account: AcmeSettings) -> AcmeService:
    storage = Storage(account.storage, account.directory)
    client = load_client(account, storage, tree.challenges, f"balancebeam/{__version__}")
    return AcmeService(
        client,
        storage,
        tree.certificates.set_acme_certificate,
        tree.reactor,
        tree.shared.random,
        DaemonThreads(tree.reactor),
        tree.ticker.wall_time,
    )


def commit_acme(tree: ServiceTree, prepared: PreparedAcme | None) -> None:
    """
    Activate the result of `prepare_acme`.

    The listeners and certificates of the new settings are active by now: stored certificates
    replace self-signed ones at once, and orders begin.
    """
    service = None if prepared is None else prepared.service
    if tree.acme is not None and tree.acme is not service:
        # Cancels its orders. Their challenges are withdrawn by themselves.
        tree.acme.disownServiceParent()
    if prepared is not None:
        prepared.service.apply(prepared.names, prepared.challenge_types)
        if prepared.service is not tree.acme:
            prepared.service.setServiceParent(tree)
    tree.acme = service


def challenge_types(settings: Settings) -> tuple[str, ...]:
    """Return the types of challenges that the listeners serve, the preferred one first."""
    # Frontends with TLS serve tls-alpn-01, in both modes; only redirects serve http-01.
    if any(frontend.redirect_https for frontend in settings.frontends):
        return HTTP_01, TLS_ALPN_01
    return (TLS_ALPN_01,)
