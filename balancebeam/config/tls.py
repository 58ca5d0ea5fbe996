"""Parsers of the settings of TLS: `[frontend.tls]`, `[pool.tls]` and `[acme]`."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from typing import Any

from balancebeam.config import values as v
from balancebeam.config.reader import Table
from balancebeam.core.ip import parse_ip
from balancebeam.core.tls_settings import (
    CLIENT_AUTH_MODES,
    TLS_VERSIONS,
    AcmeSettings,
    CertificateSource,
    FrontendTlsSettings,
    PoolTlsSettings,
)

# RFC 1034, 3.5 and RFC 1123, 2.1, without underscores: a certificate authority issues no
# certificates for other names.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")

# Names of servers in private networks have underscores.
_SERVER_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_SERVER_NAME = re.compile(rf"{_SERVER_LABEL}(?:\.{_SERVER_LABEL})*")

# RFC 1035, 2.3.4: 255 bytes on the wire, which are 253 characters.
_MAX_NAME_LENGTH = 253

# RFC 7301, 3.1: `opaque ProtocolName<1..2^8-1>`.
_MAX_PROTOCOL_LENGTH = 255

# RFC 8555, 6.1: "Use of HTTPS is REQUIRED".
_DIRECTORY = re.compile(r"https://[A-Za-z0-9.\-_\[\]:]+(/[!-~]*)?")

# RFC 8555, 7.3: a mailto URL with one address, and without header fields ("?").
_EMAIL = re.compile(r"[!-~]+@[!-~]+")
_NOT_IN_EMAIL = re.compile(r"[,?@].*@|[,?]")

# Strength in bits below which OpenSSL's security level 2, the usual default, rejects a cipher. Its
# parser accepts such ciphers, and they are rejected only in the handshake.
_MIN_CIPHER_BITS = 112
_LOW_SECURITY_LEVEL = re.compile(r"@SECLEVEL=[01](?![0-9])")


def parse_frontend_tls(table: Table | None) -> FrontendTlsSettings | None:
    """Parse `[frontend.tls]`; without that table connections are not encrypted."""
    if table is None:
        return None
    defaults = FrontendTlsSettings()
    alpn = table.get_list("alpn", v.parsed(parse_protocol))
    settings = FrontendTlsSettings(
        certificates=table.get_list("certificates", parse_certificate),
        acme=table.get_list("acme", v.parsed(parse_acme_name)),
        self_signed=table.get("self_signed", v.boolean, defaults.self_signed),
        min_version=table.get("min_version", v.one_of(TLS_VERSIONS), defaults.min_version),
        ciphers=table.get("ciphers", v.parsed(parse_ciphers), defaults.ciphers),
        alpn=alpn if "alpn" in table else None,
        strict_sni=table.get("strict_sni", v.boolean, defaults.strict_sni),
        client_ca=table.get("client_ca", v.file_path, None),
        client_auth=table.get("client_auth", v.one_of(CLIENT_AUTH_MODES), defaults.client_auth),
    )
    table.reject_unknown_keys()
    _reject_repeated(table, "certificates", settings.certificates)
    _reject_repeated(table, "acme", settings.acme)
    _reject_repeated(table, "alpn", alpn)
    return settings


def parse_pool_tls(table: Table | None) -> PoolTlsSettings | None:
    """Parse `[pool.tls]`."""
    if table is None:
        return None
    defaults = PoolTlsSettings()
    settings = PoolTlsSettings(
        ca=table.get("ca", v.file_path, None),
        server_name=table.get("server_name", v.parsed(parse_server_name), None),
        verify=table.get("verify", v.boolean, defaults.verify),
        cert=table.get("cert", v.file_path, None),
        key=table.get("key", v.file_path, None),
        all_servers=table.get("all_servers", v.boolean, defaults.all_servers),
    )
    table.reject_unknown_keys()
    if "key" in table and "cert" not in table:
        table.add_error("key", "key without a certificate: expected cert too")
    if "ca" in table and not settings.verify:
        table.add_error("ca", "not used with verify = false: expected verify = true, or no ca")
    return settings


def parse_acme(table: Table | None) -> AcmeSettings | None:
    """Parse `[acme]`."""
    if table is None:
        return None
    if "storage" not in table:
        table.reject("storage", "missing storage: expected the path of a directory")
    settings = AcmeSettings(
        storage=table.get("storage", v.file_path, ""),
        directory=table.get("directory", v.parsed(_parse_directory), AcmeSettings("").directory),
        email=table.get("email", v.parsed(parse_email), None),
        ca=table.get("ca", v.file_path, None),
    )
    table.reject_unknown_keys()
    return settings


def parse_certificate(value: Any) -> CertificateSource:
    """Parse a certificate: a path, or a table with the keys `cert` and `key`."""
    if isinstance(value, dict):
        unknown = [key for key in value if key not in ("cert", "key")]
        if unknown:
            raise ValueError(f"unknown key {v.display(unknown[0])}: expected cert and key")
        if len(value) < 2:
            raise ValueError(f"invalid certificate {v.display(value)}: expected cert and key")
        return CertificateSource(v.file_path(value["cert"]), v.file_path(value["key"]))
    if not isinstance(value, str):
        raise ValueError(
            f"invalid certificate {v.display(value)}: "
            'expected a path, or {cert = "FILE", key = "FILE"}'
        )
    return CertificateSource(v.file_path(value))


def parse_certificate_option(text: str) -> CertificateSource:
    """Parse `CERT[,KEY]`."""
    cert, comma, key = text.partition(",")
    if not cert or (comma and (not key or "," in key)):
        raise ValueError(f"invalid certificate {v.display(text)}: expected CERT or CERT,KEY")
    return CertificateSource(v.file_path(cert), v.file_path(key) if comma else None)


def parse_acme_name(text: str) -> str:
    """Parse a host name for which ACME obtains a certificate."""
    if text.startswith("*."):
        raise ValueError(
            f"unsupported name {v.display(text)}: expected one without a wildcard, "
            "which http-01 and tls-alpn-01 cannot validate"
        )
    name = text.lower()
    # RFC 8738 has identifiers of IP addresses, which most certificate authorities do not issue.
    if _DNS_NAME.fullmatch(name) is None or len(name) > _MAX_NAME_LENGTH or _is_address(name):
        raise ValueError(
            f"invalid name {v.display(text)}: expected a host name such as www.example.org"
        )
    return name


def parse_server_name(text: str) -> str:
    """Parse the name of a server for SNI and verification: a host name or an IP address."""
    address = parse_ip(text)
    if address is not None:
        return str(address)
    name = text.lower()
    if _SERVER_NAME.fullmatch(name) is None or len(name) > _MAX_NAME_LENGTH or _is_address(name):
        raise ValueError(
            f"invalid server name {v.display(text)}: expected a host name or an IP address"
        )
    return name


def _is_address(name: str) -> bool:
    """Return whether `name` ends in a number, as addresses do, and mistyped addresses."""
    return name.rpartition(".")[2].isdigit()


def parse_protocol(text: str) -> str:
    """Parse the name of an application protocol for ALPN."""
    if not text.isascii() or not 1 <= len(text) <= _MAX_PROTOCOL_LENGTH:
        raise ValueError(
            f"invalid protocol {v.display(text)}: "
            f"expected 1 to {_MAX_PROTOCOL_LENGTH} ASCII characters"
        )
    return text


def parse_ciphers(text: str) -> str:
    """
    Parse a list of TLS 1.2 cipher suites, in the syntax of OpenSSL.

    Raises:
        ValueError: OpenSSL rejects the list, or a suite of it is weaker than its default security
            level allows.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if "\0" in text:
            # PyPy passes on what precedes it.
            raise ValueError("embedded null character")
        context.set_ciphers(text)
    except (ssl.SSLError, ValueError) as error:
        reason = str(error.args[-1] if error.args else error).rstrip(".").lower()
        raise ValueError(
            f"invalid ciphers {v.display(text)}: {reason}: "
            'expected TLS 1.2 cipher suites of OpenSSL, such as "ECDHE+AESGCM"'
        ) from None
    if _LOW_SECURITY_LEVEL.search(text):
        raise ValueError(f"invalid ciphers {v.display(text)}: expected @SECLEVEL=2 or more")
    weak = [str(cipher["name"]) for cipher in context.get_ciphers() if _is_weak(cipher)]
    if weak:
        raise ValueError(
            f"weak ciphers in {v.display(text)}: {weak[0]}: expected suites with authentication "
            f"and at least {_MIN_CIPHER_BITS} bits"
        )
    return text


def _is_weak(cipher: Any) -> bool:
    """Return whether a cipher, an element of `SSLContext.get_ciphers`, is below level 2."""
    bits = cipher.get("strength_bits", _MIN_CIPHER_BITS)
    return bits < _MIN_CIPHER_BITS or "Au=None" in cipher.get("description", "")


def parse_email(text: str) -> str:
    """Parse the contact address of an ACME account."""
    if _EMAIL.fullmatch(text) is None or _NOT_IN_EMAIL.search(text):
        raise ValueError(
            f"invalid email {v.display(text)}: expected an address such as ops@example.org"
        )
    return text


def _parse_directory(text: str) -> str:
    if _DIRECTORY.fullmatch(text) is None:
        raise ValueError(f"invalid directory {v.display(text)}: expected a URL with https://")
    return text


def _reject_repeated(
    table: Table, key: str, values: Sequence[str] | Sequence[CertificateSource]
) -> None:
    """Report the values of a list that are in it more than once."""
    for value in dict.fromkeys(values):
        if values.count(value) > 1:
            table.add_error(
                key, f"duplicate value {v.display(str(value))}: expected each value once"
            )
