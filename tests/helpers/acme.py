"""ACME servers, challenge listeners and certificates for tests of `balancebeam.acme`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from balancebeam.acme.certificate import Certificate, read_certificate
from balancebeam.acme.challenges import ALPN_PROTOCOL, Challenges
from balancebeam.protocols.client_hello import ClientHelloReader
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    accepts_connections,
    free_port,
    read_head,
    wait_until,
)

DAY = 24 * 3600.0

# Debian's package "pebble" has both programs.
PEBBLE = shutil.which("pebble")
DNS_SERVER = shutil.which("pebble-challtestsrv")


def issue_certificate(
    name: str, not_before: float = 0.0, not_after: float = 90 * DAY
) -> Certificate:
    """Return a self-signed certificate with a new key, valid between these POSIX times."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(not_before, timezone.utc))
        .not_valid_after(datetime.fromtimestamp(not_after, timezone.utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return read_certificate(
        name,
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


class Pebble:
    """
    The ACME test server "pebble" and its DNS server, which resolves all names to 127.0.0.1.

    Attributes:
        directory: URL of the ACME directory.
        ca: file with the CA certificate of the ACME server.
        http_port: port of http-01 validation requests.
        tls_port: port of tls-alpn-01 validation requests.
    """

    def __init__(self, folder: Path, rejected_nonces: int) -> None:
        """
        Start both programs, and wait until they accept connections.

        Args:
            folder: Directory of the configuration and the logs.
            rejected_nonces: Per cent of the valid nonces that are rejected with badNonce.
        """
        assert PEBBLE is not None
        assert DNS_SERVER is not None
        port, dns_port, admin_port = free_port(), free_port(), free_port()
        self.http_port, self.tls_port = free_port(), free_port()
        self.directory = f"https://localhost:{port}/dir"
        self.ca = str(folder / "ca.pem")
        certificate = issue_certificate("localhost", not_after=100 * 365 * DAY)
        Path(self.ca).write_bytes(certificate.chain)
        (folder / "key.pem").write_bytes(certificate.key)
        settings = {
            "listenAddress": f"127.0.0.1:{port}",
            "certificate": self.ca,
            "privateKey": str(folder / "key.pem"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        dns = f"127.0.0.1:{dns_port}"
        self._processes = [
            _start(
                folder / "dns.log",
                *(DNS_SERVER, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", dns),
                *("-http01", "", "-https01", "", "-tlsalpn01", ""),
                *("-management", f"127.0.0.1:{admin_port}"),
            ),
            _start(
                folder / "pebble.log",
                *(PEBBLE, "-config", str(folder / "pebble.json"), "-strict", "-dnsserver", dns),
                PEBBLE_VA_NOSLEEP="1",
                PEBBLE_WFE_NONCEREJECT=str(rejected_nonces),
            ),
        ]
        try:
            # The DNS server has also a TCP listener.
            for wait_port in (port, dns_port):
                wait_until(partial(accepts_connections, wait_port))
        except TimeoutError:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill both programs; more calls have no effect."""
        for process in self._processes:
            process.kill()
            process.wait()


def _start(log: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    with open(log, "wb") as file:
        return subprocess.Popen(
            arguments,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )


@contextlib.contextmanager
def run_pebble(folder: Path, rejected_nonces: int = 0) -> Iterator[Pebble]:
    """Run an ACME server."""
    pebble = Pebble(folder, rejected_nonces)
    try:
        yield pebble
    finally:
        pebble.stop()


def serve_http_challenges(challenges: Challenges, port: int) -> ScriptedServer:
    """Start a plain HTTP server for http-01 validation requests."""

    def serve(connection: socket.socket, number: int) -> None:
        """Answer one request."""
        head, _ = read_head(connection)
        body = challenges.respond(head.split(b" ", 2)[1])
        status = b"404 Not Found" if body is None else b"200 OK"
        connection.sendall(
            b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body or b""), body or b"")
        )

    return ScriptedServer(serve, port)


def serve_https(folder: Path, respond: Callable[[str, str], bytes]) -> tuple[ScriptedServer, str]:
    """
    Start an HTTPS server that is no ACME server.

    Args:
        folder: Directory for its certificate.
        respond: Returns a JSON body for the root URL of the server and the path of a request.

    Returns:
        The server, and the file with its CA certificate. Its name is "localhost".
    """
    certificate = issue_certificate("localhost", not_after=100 * 365 * DAY)
    ca, both = folder / "ca.pem", folder / "both.pem"
    ca.write_bytes(certificate.chain)
    both.write_bytes(certificate.chain + certificate.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(both))

    def serve(connection: socket.socket, number: int) -> None:
        """Answer one request."""
        root = f"https://localhost:{connection.getsockname()[1]}"
        with context.wrap_socket(connection, server_side=True) as secured:
            head, _ = read_head(secured)
            body = respond(root, head.split(b" ", 2)[1].decode())
            secured.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )

    return ScriptedServer(serve), str(ca)


def serve_tls_challenges(challenges: Challenges, port: int) -> ScriptedServer:
    """Start a TLS server for tls-alpn-01 validation requests: handshakes only."""

    def serve(connection: socket.socket, number: int) -> None:
        """Select the context by the ClientHello, and shake hands."""
        reader = ClientHelloReader()
        connection.settimeout(TIMEOUT)
        hello = reader.feed(connection.recv(65536, socket.MSG_PEEK))
        assert hello is not None
        context = challenges.tls_contexts.get(hello.server_name or "")
        if context is not None and hello.alpn == (ALPN_PROTOCOL.encode(),):
            with contextlib.suppress(ssl.SSLError):
                context.wrap_socket(connection, server_side=True).close()

    return ScriptedServer(serve, port)
