"""
TLS contexts of connections to servers: CA certificates, verification, and client certificates.

All files are read when a context is built, so that an error rejects a reload. A context is built
again to pick up changed files; `ClientContext.fingerprint` shows whether they have changed.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import stat
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from attrs import evolve, field, frozen

from balancebeam.core.addresses import ServerAddress, UnixAddress
from balancebeam.core.errors import ConfigError, describe_os_error
from balancebeam.core.tls_settings import PoolTlsSettings
from balancebeam.tls.contexts import NO_RENEGOTIATION, temporary_file
from balancebeam.tls.pem import read_regular_file
from balancebeam.tls.signatures import file_signatures

# The bundle with all CA certificates of Mozilla has 0.2 MiB.
MAX_FILE_SIZE = 4 * 1024 * 1024

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*"
    rb"-----END (?:X509 |TRUSTED )?CERTIFICATE-----"
)
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")

# PKCS #8, and the header of the older format of OpenSSL (RFC 1421, 4.6.1.1).
_ENCRYPTED_KEY = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.M)


@frozen
class ClientContext:
    """
    The TLS context of connections to the servers of a pool.

    Attributes:
        context: the context of the TLS library.
        fingerprint: differs if the settings or the content of a file differ, or if the CA
            certificates of the system have changed.
        warnings: problems that do not prevent the use of the context, such as expired
            certificates; one text each.
    """

    context: ssl.SSLContext = field(eq=False)
    fingerprint: bytes
    warnings: tuple[str, ...] = ()


class ServerTls:
    """
    TLS of the connections to one server.

    The session belongs to one context and one name. A new context, or a new name, gets a new
    object, so that no session is resumed that was established with another verification.

    Attributes:
        context: the context of handshakes.
        server_hostname: the name or IP address for SNI and verification; `None` for neither.
        session: the session that new connections resume; `None` if there is none yet.
    """

    __slots__ = ("context", "server_hostname", "session")

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self.context = context
        self.server_hostname = server_hostname
        self.session: ssl.SSLSession | None = None


def server_hostname(settings: PoolTlsSettings, address: ServerAddress) -> str | None:
    """
    Return the name or IP address that a server is verified by; `None` if there is none.

    The TLS library verifies IP addresses as such, and sends no SNI for these.
    """
    if settings.server_name is not None:
        return settings.server_name
    if isinstance(address, UnixAddress):
        return None
    # RFC 6066, 3: the name in SNI is "without a trailing dot". The zone of a link-local address
    # is local to this host; no certificate has it.
    return address.host.partition("%")[0].rstrip(".")


def build_client_context(settings: PoolTlsSettings) -> ClientContext:
    """
    Build the context for `settings`; reads all files.

    Raises:
        ConfigError: a file cannot be read, or its content is not valid.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | NO_RENEGOTIATION
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    digest = hashlib.sha256(repr(evolve(settings, server_name=None)).encode())
    warnings: list[str] = []
    if settings.ca is not None:
        content, _ = _read(settings.ca)
        digest.update(hashlib.sha256(content).digest())
        _load_ca(context, settings.ca, content)
        warnings += _expired_ca_warnings(context, settings.ca)
    elif settings.verify:
        digest.update(repr(file_signatures(_system_ca_paths())).encode())
        context.load_default_certs()
    if settings.cert is not None:
        key = settings.key or settings.cert
        key_content, key_mode = _read(key)
        files = {settings.cert: _read(settings.cert)[0], key: key_content}
        for content in files.values():
            digest.update(hashlib.sha256(content).digest())
        _load_client_certificate(context, settings.cert, key, files)
        warnings += _client_certificate_warnings(settings.cert, files[settings.cert])
        if key_mode & stat.S_IROTH:
            warnings.append(f"{key}: the private key is readable by all users")
    _check_server_name(context, settings.server_name)
    return ClientContext(context, digest.digest(), tuple(warnings))


def _system_ca_paths() -> list[str]:
    """The file and the directory of the CA certificates of the system, if they exist."""
    paths = ssl.get_default_verify_paths()
    return [path for path in (paths.cafile, paths.capath) if path is not None]


def _read(path: str) -> tuple[bytes, int]:
    """Return the content and the mode of a file."""
    try:
        return read_regular_file(path, MAX_FILE_SIZE)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {describe_os_error(error)}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _load_ca(context: ssl.SSLContext, path: str, content: bytes) -> None:
    # Comments between the certificates may be in any encoding; `cadata` has to be ASCII.
    certificates = _CERTIFICATE.findall(content)
    if not certificates:
        raise ConfigError(f"{path}: no CA certificate found: expected PEM")
    try:
        context.load_verify_locations(cadata=b"\n".join(certificates).decode("ascii") + "\n")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{path}: invalid CA certificate: {_reason(error)}") from None


def _load_client_certificate(
    context: ssl.SSLContext, cert: str, key: str, files: dict[str, bytes]
) -> None:
    if not _CERTIFICATE.search(files[cert]):
        raise ConfigError(f"{cert}: no certificate found: expected PEM")
    if _ENCRYPTED_KEY.search(files[key]):
        raise ConfigError(f"{key}: the private key is encrypted: expected one without passphrase")
    if not _PRIVATE_KEY.search(files[key]):
        raise ConfigError(f"{key}: no private key found: expected PEM")
    try:
        # The files may have changed since they were read.
        with temporary_file(files[cert]) as cert_copy, temporary_file(files[key]) as key_copy:
            # Without a password, the TLS library would read one from the terminal, and block.
            context.load_cert_chain(cert_copy, key_copy, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"{key}: the private key does not match the certificate {cert}"
        else:
            text = f"{cert}: invalid certificate or private key {key}: {_reason(error)}"
        raise ConfigError(text) from None
    except OSError as error:
        raise ConfigError(f"{cert}: cannot be loaded: {describe_os_error(error)}") from None


def _check_server_name(context: ssl.SSLContext, name: str | None) -> None:
    if name is None:
        return
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, TypeError):
        raise ConfigError(
            f"invalid server_name {name!r}: expected a host name or an IP address"
        ) from None


def _reason(error: Exception) -> str:
    """The text of the TLS library, without its numbers and source files."""
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)


def _expired_ca_warnings(context: ssl.SSLContext, path: str) -> list[str]:
    now = time.time()
    return [
        f"{path}: CA certificate {_subject(ca)} expired on {_date(expires)}"
        for ca in context.get_ca_certs()
        if (expires := ssl.cert_time_to_seconds(str(ca["notAfter"]))) <= now
    ]


def _subject(certificate: Mapping[str, Any]) -> str:
    """The last attribute of the subject, nearly always the common name."""
    subject = certificate["subject"]
    return repr(subject[-1][0][1]) if subject else "without a name"


def _client_certificate_warnings(cert: str, content: bytes) -> list[str]:
    # Imported late: only connections with client certificates need it.
    from cryptography import x509

    warnings = []
    first = _CERTIFICATE.search(content)
    assert first is not None
    try:
        expires = x509.load_pem_x509_certificate(first.group()).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise ConfigError(f"{cert}: invalid certificate: {error}") from None
    if expires <= time.time():
        warnings.append(f"{cert}: client certificate expired on {_date(expires)}")
    return warnings


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"
