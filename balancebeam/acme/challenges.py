"""The challenges that are being served: responses for http-01, TLS contexts for tls-alpn-01."""

from __future__ import annotations

import hashlib
import ssl
import threading
from datetime import datetime, timedelta, timezone

from balancebeam.acme.interfaces import TLS_ALPN_01, Challenge
from balancebeam.tls.contexts import temporary_file
from balancebeam.tls.interfaces import ACME_TLS_PROTOCOL
from balancebeam.tls.self_signed import generate_pair

# RFC 8555, 8.3.
HTTP_PATH = b"/.well-known/acme-challenge/"

# RFC 8737, 6.1: id-pe-acmeIdentifier.
ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"


class Challenges:
    """
    The challenges of all orders in progress.

    Orders run in threads, listeners on the reactor thread. Each change is one assignment to a
    key of a dictionary, and the values never change, so that readers need no lock.

    Attributes:
        tls_contexts: for each host name with a tls-alpn-01 challenge, the context of connections
            with this server name whose only ALPN protocol is `ACME_TLS_PROTOCOL`.
    """

    def __init__(self, tls_contexts: dict[str, ssl.SSLContext] | None = None) -> None:
        """
        Args:
            tls_contexts: See `tls_contexts`; the dictionary that the listeners read, if there is
                one already.
        """
        self._responses: dict[bytes, bytes] = {}
        self.tls_contexts = {} if tls_contexts is None else tls_contexts
        # The contexts of challenges that are not withdrawn yet, replaced ones included.
        self._contexts: dict[Challenge, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def respond(self, path: bytes) -> bytes | None:
        """Return the body of the response to a validation request; see `ChallengeResponder`."""
        # The usual case on a listener that redirects everything.
        if not self._responses:
            return None
        return self._responses.get(path)

    def publish(self, challenge: Challenge) -> None:
        """Serve `challenge` from now on; a tls-alpn-01 challenge replaces that of its name."""
        if challenge.type == TLS_ALPN_01:
            context = validation_context(challenge)
            with self._lock:
                self._contexts[challenge] = self.tls_contexts[challenge.name] = context
        else:
            self._responses[_path(challenge)] = challenge.key_authorization.encode("ascii")

    def withdraw(self, challenge: Challenge) -> None:
        """Serve `challenge` no longer; one that has replaced it stays."""
        if challenge.type == TLS_ALPN_01:
            # An order that was cancelled may end after the next order of its name has begun.
            with self._lock:
                context = self._contexts.pop(challenge, None)
                if context is not None and self.tls_contexts.get(challenge.name) is context:
                    del self.tls_contexts[challenge.name]
        else:
            self._responses.pop(_path(challenge), None)


def _path(challenge: Challenge) -> bytes:
    return HTTP_PATH + challenge.token.encode("ascii")


def validation_context(challenge: Challenge) -> ssl.SSLContext:
    """Return a context with the certificate that proves the control of a name (RFC 8737, 3)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8737, 4: TLS 1.2 or higher.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ACME_TLS_PROTOCOL])
    with temporary_file(_validation_certificate(challenge)) as path:
        context.load_cert_chain(path)
    return context


def _validation_certificate(challenge: Challenge) -> bytes:
    """Return a self-signed certificate and its key in PEM."""
    from cryptography import x509

    digest = hashlib.sha256(challenge.key_authorization.encode("ascii")).digest()
    # RFC 8737, 3: the SHA-256 digest as the DER encoding of an OCTET STRING.
    identifier = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(ACME_IDENTIFIER), b"\x04\x20" + digest
    )
    now, day = datetime.now(timezone.utc), timedelta(days=1)
    return generate_pair((challenge.name,), (now - day, now + day), ((identifier, True),))
