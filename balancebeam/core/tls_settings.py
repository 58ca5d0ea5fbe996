"""Settings of TLS: certificates of frontends, verification of servers, and ACME."""

from __future__ import annotations

from attrs import frozen

# TLS 1.2 cipher suites of Mozilla's intermediate configuration, version 5.7
# (https://wiki.mozilla.org/Security/Server_Side_TLS). TLS 1.3 has its own, which are all secure.
DEFAULT_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES256-GCM-SHA384",
        "DHE-RSA-CHACHA20-POLY1305",
    )
)

TLS_VERSIONS = ("1.2", "1.3")

CLIENT_AUTH_MODES = ("require", "optional")

# The production directory of Let's Encrypt.
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"


@frozen
class CertificateSource:
    """
    The files of one certificate.

    Attributes:
        cert: a PEM file with the chain, the certificate of the server first; or a directory with
            `fullchain.pem` and `privkey.pem`, if `key` is `None`.
        key: a PEM file with the private key; `None` for a key in `cert`.
    """

    cert: str
    key: str | None = None

    def __str__(self) -> str:
        return self.cert if self.key is None else f"{self.cert},{self.key}"


@frozen
class FrontendTlsSettings:
    """
    TLS with clients.

    Attributes:
        certificates: the certificates, selected by SNI; the first is the default certificate.
        acme: host names for which certificates are obtained by ACME.
        self_signed: generate a certificate for localhost at start.
        min_version: the lowest TLS version, "1.2" or "1.3".
        ciphers: TLS 1.2 cipher suites in the syntax of OpenSSL.
        alpn: application protocols, the preferred one first; `None` for the default of the mode:
            "h2" and "http/1.1" in mode "http", and no ALPN in mode "tcp".
        strict_sni: reject clients without a server name, or with one that no certificate has.
        client_ca: PEM file with the CA certificates of clients; `None` for no client certificates.
        client_auth: "require" or "optional" client certificates; only with `client_ca`.
    """

    certificates: tuple[CertificateSource, ...] = ()
    acme: tuple[str, ...] = ()
    self_signed: bool = False
    min_version: str = "1.2"
    ciphers: str = DEFAULT_CIPHERS
    alpn: tuple[str, ...] | None = None
    strict_sni: bool = False
    client_ca: str | None = None
    client_auth: str = "require"


@frozen
class PoolTlsSettings:
    """
    TLS with servers.

    Attributes:
        ca: PEM file with the CA certificates that servers are verified with; `None` for the CA
            certificates of the system.
        server_name: the name for SNI and verification; `None` for the host of the server's address.
        verify: verify the certificates of servers.
        cert: PEM file with the client certificate and its chain; `None` for none.
        key: PEM file with its private key; `None` if it is in the file `cert`.
        all_servers: connections to all servers of the pool use TLS; otherwise only connections to
            servers with `ServerSettings.tls`.
    """

    ca: str | None = None
    server_name: str | None = None
    verify: bool = True
    cert: str | None = None
    key: str | None = None
    all_servers: bool = True


@frozen
class AcmeSettings:
    """
    The ACME account and server.

    Attributes:
        directory: URL of the directory of the ACME server.
        email: contact address of the account; `None` for none.
        storage: directory of the account key and the certificates.
        ca: PEM file with the CA certificate of a private ACME server; `None` for the CA
            certificates of the system.
    """

    storage: str
    directory: str = LETS_ENCRYPT
    email: str | None = None
    ca: str | None = None
