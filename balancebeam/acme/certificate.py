"""A certificate of one host name with its key."""

from __future__ import annotations

from attrs import field, frozen

from balancebeam.tls.certificates import parse_certificate


@frozen
class Certificate:
    """
    A certificate of one host name.

    Attributes:
        chain: the certificate and its intermediate certificates in PEM.
        key: the private key in PEM.
        not_before: begin of the validity, POSIX seconds.
        not_after: end of the validity, POSIX seconds.
    """

    chain: bytes
    key: bytes = field(repr=False)
    not_before: float
    not_after: float


def read_certificate(name: str, chain: bytes, key: bytes) -> Certificate:
    """
    Return a certificate whose key and host name have been checked.

    The validity is not checked: a stored certificate may have expired.

    Args:
        name: The host name.
        chain: The certificate and its intermediate certificates in PEM.
        key: The private key in PEM.

    Raises:
        ValueError: The chain or the key is malformed, the key belongs to another certificate, or
            the certificate is for other names.
    """
    parsed = parse_certificate("chain and key", b"%b\n%b" % (chain, key))
    if name not in parsed.names:
        names = ", ".join((*parsed.names, *parsed.addresses)) or "no name"
        raise ValueError(f"the certificate is for {names}")
    return Certificate(parsed.chain, parsed.key, parsed.not_before, parsed.not_after)
