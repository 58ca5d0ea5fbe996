"""Self-signed certificates: for development, for ACME, and until that has obtained one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from balancebeam.core.ip import parse_ip
from balancebeam.tls.certificates import Certificate, parse_certificate

if TYPE_CHECKING:
    from cryptography.x509 import ExtensionType

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

# Browsers reject certificates of servers with more than 398 days.
_LIFETIME = timedelta(days=365)
# Clocks of clients may be slow.
_BACKDATED = timedelta(hours=1)


def self_signed_certificate(now: float, names: Sequence[str] = LOCAL_NAMES) -> Certificate:
    """
    Generate an ECDSA P-256 key and a certificate for it. Takes less than 1 ms.

    Args:
        now: The time in POSIX seconds.
        names: DNS names and IP addresses, at least one.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    begin = datetime.fromtimestamp(now, timezone.utc)
    pair = generate_pair(
        names,
        (begin - _BACKDATED, begin + _LIFETIME),
        (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ),
    )
    return parse_certificate("self-signed certificate", pair)


def generate_pair(
    names: Sequence[str],
    validity: tuple[datetime, datetime],
    extensions: Sequence[tuple[ExtensionType, bool]],
) -> bytes:
    """
    Generate an ECDSA P-256 key and a self-signed certificate for it.

    Args:
        names: DNS names and IP addresses, at least one.
        validity: Begin and end of the validity.
        extensions: Extensions in addition to the names and the key identifier, and whether each
            is critical.

    Returns:
        The certificate and its key in PEM.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # RFC 5280, A.1: a common name has at most 64 characters. It does not matter here.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    addresses = [(name, parse_ip(name)) for name in names]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName(name) if address is None else x509.IPAddress(address)
                    for name, address in addresses
                ]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
