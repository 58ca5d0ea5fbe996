"""A small certificate authority for tests: root, intermediate, and certificates signed by it."""

from __future__ import annotations

import functools
import ipaddress
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Union

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]

HOUR = 3600.0
DAY = 24 * HOUR

_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """An RSA key; always the same one, because its generation takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def ec_key() -> ec.EllipticCurvePrivateKey:
    """A new ECDSA key."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_key(key: PrivateKey, password: bytes | None = None) -> bytes:
    """A private key in PEM, encrypted if there is a password."""
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@frozen
class IssuedCertificate:
    """
    A certificate with its chain and key.

    Attributes:
        chain: The certificate and the intermediate certificate in PEM.
        key: The private key in PEM.
        certificate: The certificate itself.
    """

    chain: bytes
    key: bytes
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate in DER, as `ssl.SSLObject.getpeercert(True)` returns it."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def write_file(self, path: Path) -> str:
        """Write chain and key to one file; returns its path."""
        return write(path, self.chain + self.key)

    def write_pair(self, cert: Path, key: Path) -> tuple[str, str]:
        """Write chain and key to a file each; returns the paths."""
        return write(cert, self.chain), write(key, self.key)

    def write_directory(self, directory: Path) -> str:
        """Write `fullchain.pem` and `privkey.pem`, as certbot does; returns the directory."""
        directory.mkdir(exist_ok=True)
        self.write_pair(directory / "fullchain.pem", directory / "privkey.pem")
        return str(directory)


def write(path: Path, content: bytes) -> str:
    """Write a file that its owner only can read; returns its path."""
    path.touch(0o600)
    path.write_bytes(content)
    return str(path)


class CertificateAuthority:
    """
    A root certificate and an intermediate one that signs certificates of servers and clients.

    Attributes:
        root: The root certificate in PEM, for `cafile`.
        intermediate: The intermediate certificate in PEM.
    """

    def __init__(self, name: str = "Test CA") -> None:
        root_key, self._key = ec_key(), ec_key()
        root_name, self._name = _name(f"{name} root"), _name(f"{name} intermediate")
        now = time.time()
        certificates = [
            _builder(subject, key, root_name, root_key, now - DAY, now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_CA_KEY_USAGE, critical=True)
            .sign(root_key, hashes.SHA256())
            for subject, key in ((root_name, root_key), (self._name, self._key))
        ]
        self.root, self.intermediate = map(_encode, certificates)

    def issue(
        self,
        *names: str,
        common_name: str | None = None,
        key: PrivateKey | None = None,
        not_before: float | None = None,
        not_after: float | None = None,
        client: bool = False,
    ) -> IssuedCertificate:
        """
        Issue a certificate.

        Args:
            names: DNS names and IP addresses of the subjectAltName; none for no such extension.
            common_name: The common name of the subject; by default the first name.
            key: The key; by default a new ECDSA key. See `rsa_key`.
            not_before: The begin of the validity in POSIX seconds; by default an hour ago.
            not_after: The end of the validity; by default in 90 days.
            client: Issue a certificate of a client, in place of a server's.
        """
        now = time.time()
        key = key or ec_key()
        builder = _builder(
            _name(common_name or (names[0] if names else "test")),
            key,
            self._name,
            self._key,
            now - HOUR if not_before is None else not_before,
            now + 90 * DAY if not_after is None else not_after,
        )
        if names:
            alternatives = x509.SubjectAlternativeName([*map(_general_name, names)])
            builder = builder.add_extension(alternatives, critical=False)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return IssuedCertificate(
            _encode(certificate) + self.intermediate, encode_key(key), certificate
        )


@functools.cache
def shared_authority() -> CertificateAuthority:
    """The authority that tests share."""
    return CertificateAuthority()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    key: PrivateKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    not_before: float,
    not_after: float,
) -> x509.CertificateBuilder:
    # Python 3.13 verifies strictly (VERIFY_X509_STRICT), which requires the key identifiers.
    issuer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(not_before, timezone.utc))
        .not_valid_after(datetime.fromtimestamp(not_after, timezone.utc))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_identifier, critical=False)
    )


def _encode(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
