"""A certificate with its key, and the checks before it is used."""

from __future__ import annotations

from attrs import frozen


@frozen
class Certificate:
    """
    A certificate of one host name.

    Attributes:
        chain_pem: the certificate and its intermediate certificates in PEM.
        key_pem: the private key in PEM.
        not_before: begin of the validity, POSIX seconds.
        not_after: end of the validity, POSIX seconds.
    """

    chain_pem: bytes
    key_pem: bytes
    not_before: float
    not_after: float


def read_certificate(name: str, chain_pem: bytes, key_pem: bytes) -> Certificate:
    """
    Return a certificate whose key and host name have been checked.

    The validity is not checked: an expired certificate is a valid argument.

    Raises:
        ValueError: The chain or the key is malformed, the key belongs to another certificate, or
            the certificate is for other names.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    encoding = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
        key = load_pem_private_key(key_pem, None)
        matches = leaf.public_key().public_bytes(*encoding) == key.public_key().public_bytes(
            *encoding
        )
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    # TypeError: the key is encrypted.
    except (
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
    ) as error:
        raise ValueError(str(error)) from error
    if not matches:
        raise ValueError("the private key does not belong to the certificate")
    if name not in map(str.lower, names):
        raise ValueError(f"the certificate is for {', '.join(names) or 'no name'}, not {name}")
    return Certificate(
        chain_pem,
        key_pem,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
    )
