"""The challenges that are being served: responses for http-01, TLS contexts for tls-alpn-01."""

from __future__ import annotations

import hashlib
import ssl
import tempfile
from datetime import datetime, timedelta, timezone

from balancebeam.acme.interfaces import TLS_ALPN_01, Challenge

# RFC 8555, 8.3.
HTTP_PATH = b"/.well-known/acme-challenge/"

# RFC 8737, 6.2: the protocol of validation connections, which carry no data.
ALPN_PROTOCOL = "acme-tls/1"

# RFC 8737, 6.1: id-pe-acmeIdentifier.
ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"


class Challenges:
    """
    The challenges of all orders in progress.

    Orders run in threads, listeners on the reactor thread. Each change is one assignment to a
    key of a dictionary, and the values never change, so that no lock is needed.

    Attributes:
        tls_contexts: for each host name with a tls-alpn-01 challenge, the context of connections
            with this server name whose only ALPN protocol is `ALPN_PROTOCOL`.
    """

    def __init__(self, tls_contexts: dict[str, ssl.SSLContext] | None = None) -> None:
        """
        Args:
            tls_contexts: See `tls_contexts`; the dictionary that the listeners read, if there is
                one already.
        """
        self._responses: dict[bytes, bytes] = {}
        self.tls_contexts = {} if tls_contexts is None else tls_contexts

    def respond(self, path: bytes) -> bytes | None:
        """Return the body of the response to a validation request; see `ChallengeResponder`."""
        # The usual case on a listener that redirects everything.
        if not self._responses:
            return None
        return self._responses.get(path)

    def publish(self, challenge: Challenge) -> None:
        """Serve `challenge` from now on; a tls-alpn-01 challenge replaces that of its name."""
        if challenge.type == TLS_ALPN_01:
            self.tls_contexts[challenge.name] = validation_context(challenge)
        else:
            self._responses[_path(challenge)] = challenge.key_authorization.encode("ascii")

    def withdraw(self, challenge: Challenge) -> None:
        """Serve `challenge` no longer."""
        if challenge.type == TLS_ALPN_01:
            self.tls_contexts.pop(challenge.name, None)
        else:
            self._responses.pop(_path(challenge), None)


def _path(challenge: Challenge) -> bytes:
    return HTTP_PATH + challenge.token.encode("ascii")


def validation_context(challenge: Challenge) -> ssl.SSLContext:
    """Return a context with the certificate that proves the control of a name (RFC 8737, 3)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8737, 4: TLS 1.2 or higher.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN_PROTOCOL])
    # load_cert_chain reads files only; this one has mode 0600.
    with tempfile.NamedTemporaryFile(prefix="balancebeam-acme-") as file:
        file.write(_validation_certificate(challenge))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _validation_certificate(challenge: Challenge) -> bytes:
    """Return a self-signed certificate and its key in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    digest = hashlib.sha256(challenge.key_authorization.encode("ascii")).digest()
    # RFC 8737, 3: the SHA-256 digest as the DER encoding of an OCTET STRING.
    identifier = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(ACME_IDENTIFIER), b"\x04\x20" + digest
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(challenge.name)]), critical=False)
        .add_extension(identifier, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
