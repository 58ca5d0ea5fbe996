"""Interfaces between the ACME service, its client, and the listeners that serve challenges."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from balancebeam.acme.certificate import Certificate

HTTP_01 = "http-01"
TLS_ALPN_01 = "tls-alpn-01"


class AcmeError(Exception):
    """A certificate, or information about it, could not be obtained. The text is the reason."""


@frozen
class Challenge:
    """
    A challenge that has to be served until the ACME server has validated it.

    Attributes:
        type: `HTTP_01` or `TLS_ALPN_01`.
        name: the host name to validate, in lower case.
        token: the token, base64url.
        key_authorization: the token and the thumbprint of the account key (RFC 8555, 8.1).
    """

    type: str
    name: str
    token: str
    key_authorization: str


class ChallengePublisher(Protocol):
    """Makes challenges available to the listeners. Called in threads."""

    def publish(self, challenge: Challenge) -> None:
        """Serve `challenge` from now on."""

    def withdraw(self, challenge: Challenge) -> None:
        """Serve `challenge` no longer; unknown challenges are ignored."""


class ChallengeResponder(Protocol):
    """Finds the response to http-01 validation requests, for plain HTTP listeners."""

    def respond(self, path: bytes) -> bytes | None:
        """
        Return the body of the response to a GET or HEAD request, which has the type
        application/octet-stream (RFC 8555, 8.3); `None` if `path` is that of no challenge.
        """


class Cancellation(Protocol):
    """Cancels a call that runs in a thread, as `threading.Event` does."""

    def is_set(self) -> bool:
        """Whether the call is cancelled."""

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds, or until the call is cancelled; return whether it is."""


class CertificateAuthority(Protocol):
    """An ACME server. The calls block, and run in several threads at once."""

    def obtain(self, name: str, challenge_type: str, cancelled: Cancellation) -> Certificate:
        """
        Order a certificate.

        Args:
            name: The host name, the only one of the certificate.
            challenge_type: `HTTP_01` or `TLS_ALPN_01`.
            cancelled: Stops the order before its next request.

        Raises:
            AcmeError: No certificate was issued.
        """

    def renewal_time(self, certificate: Certificate, cancelled: Cancellation) -> float | None:
        """
        Return the POSIX time at which the server suggests to renew `certificate` (RFC 9773);
        `None` if the server suggests none.

        Raises:
            AcmeError: The server cannot be reached, or its response is invalid.
        """


class CertificateStorage(Protocol):
    """Keeps certificates over restarts. Called in threads too."""

    def load(self, name: str) -> Certificate | None:
        """Return the certificate of `name`; `None` if there is none that can be used."""

    def save(self, name: str, certificate: Certificate) -> None:
        """
        Replace the certificate of `name`.

        Raises:
            OSError: It is not stored.
        """


class CertificateReceiver(Protocol):
    """Receives certificates to serve, at start and after each renewal, on the reactor thread."""

    def __call__(self, name: str, chain: bytes, key: bytes, /) -> None:
        """
        Serve a certificate to new connections of all frontends that have `name`.

        Args:
            name: The host name.
            chain: The certificate and its intermediate certificates in PEM.
            key: The private key in PEM.

        Raises:
            ValueError: The certificate cannot be used.
        """
