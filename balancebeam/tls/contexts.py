"""TLS contexts of frontends, built from certificates in memory."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence

from attrs import frozen

from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.tls.certificates import Certificate
from balancebeam.tls.errors import describe_ssl_error

# PyPy has no name for it (SSL_OP_NO_RENEGOTIATION of OpenSSL's ssl.h).
OP_NO_RENEGOTIATION = getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@frozen
class ContextOptions:
    """
    The options of a context but its certificates.

    Sessions may be resumed with tickets of a context only if all of these are equal.

    Attributes:
        min_version: The lowest TLS version, "1.2" or "1.3".
        ciphers: TLS 1.2 cipher suites in the syntax of OpenSSL.
        alpn: Application protocols, the preferred one first; empty for no ALPN.
        client_ca: The CA certificates of clients in PEM; `None` for no client certificates.
        client_auth: "require" or "optional".
    """

    min_version: str
    ciphers: str
    alpn: tuple[str, ...]
    client_ca: bytes | None
    client_auth: str

    @classmethod
    def from_settings(
        cls, settings: FrontendTlsSettings, mode: str, client_ca: bytes | None
    ) -> ContextOptions:
        """Return the options of a frontend in `mode` "http" or "tcp"."""
        alpn = settings.alpn
        if alpn is None:
            alpn = () if mode == "tcp" else ("h2", "http/1.1")
        return cls(settings.min_version, settings.ciphers, alpn, client_ca, settings.client_auth)


def build_context(options: ContextOptions, certificates: Sequence[Certificate]) -> ssl.SSLContext:
    """
    Build the context of a frontend or of some of its names.

    Args:
        options: All options but the certificates.
        certificates: At most one for each type of key; OpenSSL selects one of them by the
            signature algorithms that the client supports.

    Raises:
        ValueError: OpenSSL rejects a certificate or an option.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 5746 and CVE-2009-3555: renegotiation costs the server more than the client, and
    # TLS 1.3 has none.
    context.options |= OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # As Mozilla advises: all suites are secure, and a client without AES in hardware
    # prefers ChaCha20.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.minimum_version = _VERSIONS[options.min_version]
    # One ticket in place of two, as Go's crypto/tls: 70 us of the 780 us of a handshake.
    context.num_tickets = 1
    try:
        context.set_ciphers(options.ciphers)
    except ssl.SSLError:
        raise ValueError(
            f"invalid ciphers {options.ciphers!r}: expected cipher suites of TLS 1.2 in the "
            "syntax of OpenSSL"
        ) from None
    if options.alpn:
        context.set_alpn_protocols([*options.alpn])
    if options.client_ca is not None:
        required = options.client_auth == "require"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(cadata=options.client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"invalid CA certificate: {describe_ssl_error(error)}") from None
    load_certificates(context, certificates)
    return context


def load_certificates(context: ssl.SSLContext, certificates: Sequence[Certificate]) -> None:
    """
    Load certificates, which replace these of the same types of keys in `context`.

    Session ticket keys do not change.

    Raises:
        ValueError: OpenSSL rejects a certificate; the context must not be used any more.
    """
    for certificate in certificates:
        try:
            with temporary_file(certificate.chain + certificate.key) as path:
                # Without a function for the passphrase, OpenSSL would read one from the terminal.
                context.load_cert_chain(path, password=_no_passphrase)
        except (ssl.SSLError, ValueError, OSError) as error:
            raise ValueError(
                f"{certificate.source}: certificate rejected by OpenSSL: "
                f"{describe_ssl_error(error)}"
            ) from None


def _no_passphrase() -> str:
    return ""


@contextlib.contextmanager
def temporary_file(content: bytes) -> Iterator[str]:
    """
    Provide the path of a file with `content`.

    `SSLContext.load_cert_chain` takes nothing but files. The configured files may have
    changed since they were checked.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("certificate"), "wb") as memory:
            memory.write(content)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    # Mode 0600.
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
