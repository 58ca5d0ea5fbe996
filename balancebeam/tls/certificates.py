"""Certificates with their keys: reading, and checks that need no handshake."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from attrs import field, frozen

from balancebeam.core.ip import parse_ip
from balancebeam.core.tls_settings import CertificateSource
from balancebeam.tls.pem import PemFile, parse_pem, read_pem_file

# cryptography takes 50 ms to import, and is used only with TLS: functions import it.
if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

# Files of a directory, as certbot and other ACME clients name them.
_CHAIN_FILE, _KEY_FILE = "fullchain.pem", "privkey.pem"

#: Seconds before the expiry of a certificate in which it is warned about. ACME clients
#: renew certificates of 90 days 30 days before their end.
EXPIRY_WARNING_TIME = 14 * 24 * 3600.0


@frozen
class Certificate:
    """
    A certificate of this server with its chain and private key, which match.

    Attributes:
        source: The files that it is from, for messages.
        chain: The chain in PEM, the certificate of the server first.
        key: The private key in PEM, not encrypted.
        names: The DNS names in lower case; "*.example.org" is a wildcard.
        addresses: The IP addresses.
        not_before: The begin of its validity in POSIX seconds.
        not_after: The end of its validity in POSIX seconds.
        key_type: "rsa", "ec", "ed25519" or "ed448".
        key_readable_by_all: Whether every user of the system can read the file of the key.
        chain_ordered: Whether each certificate of the chain is that of the issuer of the one
            before it.
    """

    source: str
    chain: bytes
    key: bytes = field(repr=False)
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_before: float
    not_after: float
    key_type: str
    key_readable_by_all: bool = False
    chain_ordered: bool = True

    @property
    def name(self) -> str:
        """The first name or IP address, for logs and metrics; the source if there is none."""
        return next(iter((*self.names, *self.addresses)), self.source)

    def expiry_warning(self, now: float) -> str | None:
        """Return a warning if the certificate expires soon, or has expired."""
        if now >= self.not_after:
            return f"{self.source}: certificate expired on {format_time(self.not_after)}"
        if self.not_after - now < EXPIRY_WARNING_TIME:
            return f"{self.source}: certificate expires on {format_time(self.not_after)}"
        return None

    def warnings(self, now: float) -> Iterator[str]:
        """
        Yield what is wrong with the certificate, but does not prevent its use.

        Args:
            now: The time in POSIX seconds.
        """
        expiry = self.expiry_warning(now)
        if expiry is not None:
            yield expiry
        elif now < self.not_before:
            yield f"{self.source}: certificate not valid before {format_time(self.not_before)}"
        if self.key_readable_by_all:
            yield f"{self.source}: private key readable by all users"
        if not self.chain_ordered:
            # RFC 8446, 4.4.2: "Each following certificate SHOULD directly certify the one
            # immediately preceding it."
            yield f"{self.source}: certificate chain out of order"


def certificate_files(source: CertificateSource) -> tuple[str, ...]:
    """Return the paths of the files of a certificate: the chain, and the key if it is separate."""
    if source.key is not None:
        return source.cert, source.key
    if os.path.isdir(source.cert):
        return os.path.join(source.cert, _CHAIN_FILE), os.path.join(source.cert, _KEY_FILE)
    return (source.cert,)


def read_certificate(source: CertificateSource) -> Certificate:
    """
    Read and check a certificate and its key. Blocks: to be called in a thread while clients
    are served.

    Raises:
        ValueError: A file cannot be read, is invalid, or does not match the other; the text
            begins with its path.
    """
    files = [read_pem_file(path) for path in certificate_files(source)]
    return _check_certificate(str(source), files[0], files[-1])


def parse_certificate(source: str, content: bytes) -> Certificate:
    """
    Check a certificate and its key in memory.

    Args:
        source: A name for messages.
        content: The chain and the key in PEM.

    Raises:
        ValueError: The content is invalid; the text begins with `source`.
    """
    pem = parse_pem(source, content)
    return _check_certificate(source, pem, pem)


def _check_certificate(source: str, chain_file: PemFile, key_file: PemFile) -> Certificate:
    if not chain_file.certificates:
        raise ValueError(f"{chain_file.path}: no certificate")
    if not key_file.keys:
        raise ValueError(f"{key_file.path}: no private key")
    if len(key_file.keys) > 1:
        raise ValueError(f"{key_file.path}: more than one private key")
    chain = [
        _parse_certificate(chain_file.path, number, pem)
        for number, pem in enumerate(chain_file.certificates, 1)
    ]
    key = _parse_key(key_file.path, key_file.keys[0])
    _check_match(chain_file.path, chain, key_file.path, key)
    leaf = chain[0]
    try:
        names, addresses = _subject_names(leaf)
        key_type = _key_type(leaf.public_key())
    except ValueError as error:
        raise ValueError(f"{chain_file.path}: invalid certificate: {error}") from None
    return Certificate(
        source=source,
        chain=b"".join(chain_file.certificates),
        key=key_file.keys[0],
        names=names,
        addresses=addresses,
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        key_type=key_type,
        key_readable_by_all=key_file.readable_by_all,
        chain_ordered=all(
            issued.issuer == issuer.subject for issued, issuer in zip(chain, chain[1:])
        ),
    )


def _parse_certificate(path: str, number: int, pem: bytes) -> x509.Certificate:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        # Parts that are parsed only when they are read.
        certificate.public_key()
        _ = certificate.subject, certificate.issuer, certificate.extensions
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        raise ValueError(f"{path}: invalid certificate (number {number} of the file)") from None
    return certificate


def _parse_key(path: str, pem: bytes) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # RFC 7468, 11, and the older form of RFC 1421, 4.6.1.1.
    if pem.startswith(b"-----BEGIN ENCRYPTED ") or b"Proc-Type: 4,ENCRYPTED" in pem:
        raise ValueError(
            f"{path}: private key is encrypted: expected a private key without a passphrase"
        )
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: invalid private key") from None


def _check_match(
    chain_path: str, chain: Sequence[x509.Certificate], key_path: str, key: PrivateKeyTypes
) -> None:
    """Raise `ValueError` unless `key` belongs to the first certificate of `chain`."""
    public_key = _encode_public_key(key.public_key())
    matches = [_encode_public_key(certificate.public_key()) == public_key for certificate in chain]
    if matches[0]:
        return
    if any(matches):
        raise ValueError(
            f"{chain_path}: certificate chain out of order: expected the certificate of the "
            "private key first"
        )
    where = "" if chain_path == key_path else f" in {chain_path}"
    raise ValueError(f"{key_path}: private key does not match the certificate{where}")


def _encode_public_key(key: PublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_type(key: PublicKeyTypes) -> str:
    """Return the type of a key; a context holds one certificate of each. Raises `ValueError`."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    types = (
        (rsa.RSAPublicKey, "rsa"),
        (ec.EllipticCurvePublicKey, "ec"),
        (ed25519.Ed25519PublicKey, "ed25519"),
        (ed448.Ed448PublicKey, "ed448"),
    )
    for key_class, name in types:
        if isinstance(key, key_class):
            return name
    raise ValueError("unsupported type of key: expected RSA, ECDSA or EdDSA")


def _subject_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the DNS names and the IP addresses of a certificate. Raises `ValueError`."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        # RFC 6125, 6.4.4: the common name is checked "if and only if the presented
        # identifiers do not include a DNS-ID"; RFC 9525 has dropped it, so nothing but
        # the selection depends on it.
        attributes = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        presented = [str(attribute.value) for attribute in attributes]
    else:
        presented = extension.value.get_values_for_type(x509.DNSName)
        addresses = extension.value.get_values_for_type(x509.IPAddress)
        return _normalize(presented), tuple(map(str, addresses))
    return (
        _normalize(name for name in presented if not parse_ip(name)),
        tuple(name for name in presented if parse_ip(name)),
    )


def _normalize(names: Iterable[str]) -> tuple[str, ...]:
    """Return DNS names in lower case, without the final dot, each of them once."""
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in names if name.strip(".")))


def format_time(time: float) -> str:
    """Return a POSIX time as text in UTC."""
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
