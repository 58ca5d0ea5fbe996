"""
TLS contexts of connections to servers: CA certificates, verification, and client certificates.

All files are read when a context is built, so that an error rejects a reload. A context is built
again to pick up changed files; `ClientContext.fingerprint` shows whether they have changed.
"""

from __future__ import annotations

import hashlib
import ssl
import time

from attrs import evolve, field, frozen

from balancebeam.core.addresses import ServerAddress, UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.tls_settings import CertificateSource, PoolTlsSettings
from balancebeam.tls.certificates import format_time, read_certificate
from balancebeam.tls.contexts import OP_NO_RENEGOTIATION, load_certificates
from balancebeam.tls.errors import describe_ssl_error
from balancebeam.tls.pem import read_ca_file
from balancebeam.tls.signatures import file_signatures


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
        http2_context: the context of connections that use HTTP/2, which offer nothing else by
            ALPN; `None` if no server uses it.
    """

    context: ssl.SSLContext = field(eq=False)
    fingerprint: bytes
    warnings: tuple[str, ...] = ()
    http2_context: ssl.SSLContext | None = field(default=None, eq=False)


class ServerTls:
    """
    TLS of the connections to one server.

    The session belongs to one context and one name. A new context, or a new name, gets a new
    object, so that no session is resumed that was established with another verification.

    Attributes:
        context: the context of handshakes.
        server_hostname: the name or IP address for SNI and verification; `None` for neither.
        http2: the server has to select HTTP/2 by ALPN.
        session: the session that new connections resume; `None` if there is none yet.
    """

    __slots__ = ("context", "http2", "server_hostname", "session")

    def __init__(
        self, context: ssl.SSLContext, server_hostname: str | None, http2: bool = False
    ) -> None:
        self.context = context
        self.http2 = http2
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


def build_client_context(settings: PoolTlsSettings, http2: bool = False) -> ClientContext:
    """
    Build the context for `settings`; reads all files.

    Args:
        settings: the settings of the connections.
        http2: build `ClientContext.http2_context` too.

    Raises:
        ConfigError: a file cannot be read, or its content is not valid; the text names the file.
    """
    contexts = [_new_context(settings) for _ in range(2 if http2 else 1)]
    context = contexts[0]
    # The name is a property of connections, and not of the context.
    digest = hashlib.sha256(repr((evolve(settings, server_name=None), http2)).encode())
    now = time.time()
    warnings: list[str] = []
    try:
        if settings.ca is not None:
            content = read_ca_file(settings.ca)
            digest.update(hashlib.sha256(content).digest())
            for each in contexts:
                _load_ca(each, settings.ca, content)
            warnings += _expired_ca_warnings(context, settings.ca, now)
        elif settings.verify:
            digest.update(repr(file_signatures(_system_ca_paths())).encode())
            for each in contexts:
                each.load_default_certs()
        if settings.cert is not None:
            certificate = read_certificate(CertificateSource(settings.cert, settings.key))
            for content in (certificate.chain, certificate.key):
                digest.update(hashlib.sha256(content).digest())
            for each in contexts:
                load_certificates(each, [certificate])
            warnings += certificate.warnings(now)
        _check_server_name(context, settings.server_name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if http2:
        contexts[1].set_alpn_protocols(["h2"])
    return ClientContext(context, digest.digest(), tuple(warnings), contexts[1] if http2 else None)


def _new_context(settings: PoolTlsSettings) -> ssl.SSLContext:
    """Create a context without certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | OP_NO_RENEGOTIATION
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _system_ca_paths() -> list[str]:
    """The file and the directory of the CA certificates of the system, if they exist."""
    paths = ssl.get_default_verify_paths()
    return [path for path in (paths.cafile, paths.capath) if path is not None]


def _load_ca(context: ssl.SSLContext, path: str, content: bytes) -> None:
    """Load CA certificates. Raises `ValueError`."""
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{path}: invalid CA certificate: {describe_ssl_error(error)}") from None


def _check_server_name(context: ssl.SSLContext, name: str | None) -> None:
    """Raise `ValueError` unless `name` is valid in SNI."""
    if name is None:
        return
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, TypeError):
        raise ValueError(
            f"invalid server_name {name!r}: expected a host name or an IP address"
        ) from None


def _expired_ca_warnings(context: ssl.SSLContext, path: str, now: float) -> list[str]:
    return [
        f"{path}: CA certificate expired on {format_time(expires)}"
        for ca in context.get_ca_certs()
        if (expires := ssl.cert_time_to_seconds(str(ca["notAfter"]))) <= now
    ]
