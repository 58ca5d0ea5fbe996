"""TLS servers in memory, at the other end of the balancer's connections."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    FrontendSettings,
    PoolSettings,
    PoolTlsSettings,
    ServerSettings,
    Settings,
)
from tests.helpers.certificates import IssuedCertificate, shared_authority, write
from tests.helpers.memory import GET, MemoryBalancer, Peer


def server_context(
    path: Path, certificate: IssuedCertificate, client_ca: str | None = None
) -> ssl.SSLContext:
    """The context of a server; `certificate` is written to `path`. `client_ca` is a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.write_file(path))
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsPeer:
    """
    A server that speaks TLS on the connection of a `Peer`.

    Attributes:
        peer: The connection below.
        context: The context of the server.
        engine: The state of the TLS library.
        outgoing: Records to be sent.
        completed: The handshake is complete.
        server_name: What the client has sent as SNI; `None` without.
        error: Why the handshake or the connection failed; `None` if it did not.
        preamble: Bytes received before the ClientHello, if `preamble_size` was given.
        input_closed: The balancer has sent close_notify.
    """

    def __init__(self, peer: Peer, context: ssl.SSLContext, preamble_size: int = 0) -> None:
        """Answer the ClientHello, and continue until neither side has anything to send."""
        self.peer = peer
        self.server_name: str | None = None
        self.error: Exception | None = None
        self.input_closed = False
        self.completed = False
        self.context = context
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context.sni_callback = self._record_server_name
        self.engine = context.wrap_bio(self._incoming, self.outgoing, server_side=True)
        self._plaintext = b""
        self.preamble = peer.transport.read_some(preamble_size)
        self.pump()

    def _record_server_name(self, engine: ssl.SSLObject, name: str | None, context: object) -> None:
        self.server_name = name

    def pump(self) -> None:
        """Exchange bytes with the balancer until neither side has anything to send."""
        while data := self.peer.received():
            self._incoming.write(data)
            self._step()
            self._flush()

    def _step(self) -> None:
        try:
            if not self.completed:
                self.engine.do_handshake()
                self.completed = True
            while data := self.engine.read(65536):
                self._plaintext += data
            self.input_closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error

    def _flush(self) -> None:
        data = self.outgoing.read()
        if data and not self.peer.transport.closing:
            self.peer.send(data)

    def received(self) -> bytes:
        """The plaintext received since the last call."""
        self.pump()
        data, self._plaintext = self._plaintext, b""
        return data

    def send(self, *pieces: bytes) -> None:
        """Send each piece as a record of its own."""
        for piece in pieces:
            self.engine.write(piece)
            self._flush()
        self.pump()

    def send_close_notify(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.engine.unwrap()
        self._flush()

    def half_close(self) -> None:
        """Send a FIN."""
        self.peer.half_close()
        self.pump()


class TlsTestCase(SynchronousTestCase):
    """
    Base class: a balancer with TLS to servers at 10.0.0.1:443, 10.0.0.2:443 and so on.

    Attributes:
        directory: A directory for files.
        ca: The file with the CA certificate.
    """

    mode = "http"

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.ca = write(self.directory / "ca.pem", shared_authority().root)

    def settings(
        self, tls: PoolTlsSettings | None = None, servers: int = 1, **server: Any
    ) -> Settings:
        """Settings of a pool with `tls`, by default with the CA of the tests."""
        addresses = [TcpAddress(f"10.0.0.{number}", 443) for number in range(1, servers + 1)]
        pool = PoolSettings(
            servers=tuple(ServerSettings(address, **server) for address in addresses),
            tls=tls or PoolTlsSettings(ca=self.ca),
        )
        frontend = FrontendSettings(bind=(), mode=self.mode, pool="app")
        return Settings((frontend,), (pool,))

    def balancer(self, *arguments: Any, **options: Any) -> MemoryBalancer:
        """Start a balancer that is stopped after the test; arguments as for `settings`."""
        balancer = MemoryBalancer.from_settings(self.settings(*arguments, **options))
        self.addCleanup(balancer.stop)
        return balancer

    def context(self, *names: str, **options: Any) -> ssl.SSLContext:
        """The context of a server whose certificate has these names."""
        return self.context_for(shared_authority().issue(*names, **options))

    def context_for(self, certificate: IssuedCertificate, **options: Any) -> ssl.SSLContext:
        """The context of a server with a certificate."""
        return server_context(self.directory / "server.pem", certificate, **options)

    def reload(self, balancer: MemoryBalancer, settings: Settings) -> None:
        """Reload with new settings."""
        balancer.service.load_settings = lambda: settings
        balancer.service.reload()

    def request(
        self, balancer: MemoryBalancer, context: ssl.SSLContext, request: bytes = GET
    ) -> tuple[Peer, TlsPeer]:
        """A client that has sent a request, and the server that has accepted a connection."""
        client = balancer.client()
        client.send(request)
        return client, TlsPeer(balancer.accept(), context)
