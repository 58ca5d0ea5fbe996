"""Late import of the ACME client, with errors for the administrator."""

from __future__ import annotations

import ssl

from balancebeam.acme.interfaces import CertificateAuthority, ChallengePublisher
from balancebeam.acme.storage import Storage
from balancebeam.core.errors import ConfigError, describe_os_error
from balancebeam.core.settings import AcmeSettings


def load_client(
    settings: AcmeSettings, storage: Storage, publisher: ChallengePublisher, user_agent: str
) -> CertificateAuthority:
    """
    Return the client of an ACME server; no connection is made.

    Args:
        settings: The account and the server.
        storage: Keeps the account key.
        publisher: Serves the challenges.
        user_agent: Sent with every request.

    Raises:
        ConfigError: The libraries are not installed, or the CA certificates cannot be read.
    """
    try:
        from balancebeam.acme.client import AcmeClient
    except ImportError as error:
        raise ConfigError(
            f"[acme]: the library {error.name or 'acme'} is not installed: "
            "pip install 'balancebeam[acme]'"
        ) from error
    if settings.ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.ca)
        except OSError as error:
            raise ConfigError(
                f"[acme]: invalid ca {settings.ca!r}: {describe_os_error(error)}"
            ) from error
    return AcmeClient(settings, storage, publisher, user_agent)
