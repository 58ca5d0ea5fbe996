"""TLS handshakes in memory, without sockets."""

from __future__ import annotations

import ssl

from attrs import frozen

from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.protocols.client_hello import ClientHello, ClientHelloReader
from balancebeam.tls.certificates import Certificate, parse_certificate
from balancebeam.tls.interfaces import ContextSelector
from balancebeam.tls.pem import read_ca_file
from balancebeam.tls.selection import FrontendContexts, PreparedContexts, prepare_contexts
from tests.helpers.certificates import IssuedCertificate, shared_authority


@frozen
class Handshake:
    """
    The result of a handshake.

    Attributes:
        client: The client's side; its session can be resumed.
        server: The server's side.
        hello: The ClientHello that the server has received.
    """

    client: ssl.SSLObject
    server: ssl.SSLObject
    hello: ClientHello

    @property
    def certificate(self) -> bytes:
        """The server's certificate in DER."""
        certificate = self.client.getpeercert(True)
        assert certificate is not None
        return certificate


def client_context(ca: bytes | None = None) -> ssl.SSLContext:
    """
    A context of a client that verifies the server, but not its name.

    Args:
        ca: The CA certificates in PEM; by default that of the shared test authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=(ca or shared_authority().root).decode())
    return context


def handshake(
    selector: ContextSelector,
    client: ssl.SSLContext,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> Handshake:
    """
    Make a handshake.

    Raises:
        AlertError: The selector rejects the client.
        ssl.SSLError: The handshake fails on either side.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    _step(client_side)
    first = to_server.read()
    hello = ClientHelloReader().feed(first)
    assert hello is not None
    to_server.write(first)
    server_side = selector.select(hello).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        # The server comes first: its verdict on the client's certificate is more precise than
        # the alert that follows.
        server_finished, client_finished = _step(server_side), _step(client_side)
    assert server_finished and client_finished
    # The client reads the session tickets of TLS 1.3.
    server_side.write(b"x")
    assert client_side.read(1) == b"x"
    return Handshake(client_side, server_side, hello)


def _step(side: ssl.SSLObject) -> bool:
    """Continue a handshake; whether it has finished."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def as_certificate(issued: IssuedCertificate) -> Certificate:
    """A certificate of the test authority as the server has it in memory."""
    return parse_certificate("test.pem", issued.chain + issued.key)


def frontend_contexts(
    *certificates: IssuedCertificate,
    settings: FrontendTlsSettings | None = None,
    mode: str = "http",
) -> FrontendContexts:
    """The contexts of a frontend with certificates of the test authority."""
    return FrontendContexts(prepared_contexts(*certificates, settings=settings, mode=mode))


def prepared_contexts(
    *certificates: IssuedCertificate,
    settings: FrontendTlsSettings | None = None,
    mode: str = "http",
) -> PreparedContexts:
    """Contexts that are not active yet. The file `settings.client_ca` is read."""
    settings = settings or FrontendTlsSettings()
    client_ca = None if settings.client_ca is None else read_ca_file(settings.client_ca)
    return prepare_contexts(settings, mode, [*map(as_certificate, certificates)], client_ca)
