"""TCP connections routed by the server name in the client's TLS ClientHello."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    FrontendSettings,
    FrontendTimeouts,
    LimitSettings,
    PoolSettings,
    RouteSettings,
    ServerSettings,
    Settings,
)
from balancebeam.tls.interfaces import TlsInfo
from tests.helpers.memory import MemoryBalancer, Peer
from tests.helpers.processes import TIMEOUT, ScriptedServer, run_balancer


def client_hello(name: str | None) -> bytes:
    """The first bytes of a TLS connection, as OpenSSL sends them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLError:
        # The handshake needs the server's bytes to continue.
        return outgoing.read()
    raise AssertionError("the handshake completed without a peer")


def settings() -> Settings:
    """One frontend; a.example and the subdomains of b.example have pools of their own."""

    def pool(name: str, host: str) -> PoolSettings:
        """A pool with one server."""
        return PoolSettings(name, (ServerSettings(TcpAddress(host, 443)),))

    return Settings(
        frontends=(
            FrontendSettings(
                bind=(),
                mode="tcp",
                pool="rest",
                routes=(
                    RouteSettings("a", host="A.example"),
                    RouteSettings("b", host="*.b.example", limits=(LimitSettings(1),)),
                ),
                timeouts=FrontendTimeouts(header=4),
            ),
        ),
        pools=(pool("rest", "10.0.0.1"), pool("a", "10.0.0.2"), pool("b", "10.0.0.3")),
    )


class SniRoutingTests(SynchronousTestCase):
    """The server of a connection, and the bytes that it receives."""

    def setUp(self) -> None:
        """Start a balancer with three pools."""
        self.balancer = MemoryBalancer.from_settings(settings())
        self.addCleanup(self.balancer.stop)
        self.addCleanup(self.balancer.finish_closing)

    def connected_hosts(self) -> list[str]:
        """The servers of all connection attempts so far, in order."""
        return [str(connector.address).partition(":")[0] for connector in self.balancer.connectors]

    def connect(self, *pieces: bytes) -> Peer:
        """A client that has sent `pieces`."""
        client = self.balancer.client()
        client.send(*pieces)
        return client

    def test_routing_by_server_name(self) -> None:
        """The server name selects the route; without a match the default pool is used."""
        for name, host in (
            ("a.example", "10.0.0.2"),
            ("x.b.example", "10.0.0.3"),
            ("b.example", "10.0.0.1"),
            ("other.example", "10.0.0.1"),
            (None, "10.0.0.1"),
        ):
            hello = client_hello(name)
            self.connect(hello + b"and more")
            self.assertEqual(self.connected_hosts()[-1], host, name)
            self.assertEqual(self.balancer.accept().received(), hello + b"and more")

    def test_terminated_tls(self) -> None:
        """Where TLS is terminated, the name of the handshake selects the route immediately."""
        for name, host in (
            ("a.example", "10.0.0.2"),
            ("x.b.example", "10.0.0.3"),
            ("other.example", "10.0.0.1"),
            (None, "10.0.0.1"),
        ):
            client = self.balancer.client(tls=TlsInfo("TLSv1.3", server_name=name))
            self.assertEqual(self.connected_hosts()[-1], host, name)
            # The application data is not read as another ClientHello.
            hello = client_hello("a.example")
            client.send(hello)
            self.assertEqual(self.balancer.accept().received(), hello)

    def test_terminated_tls_without_routes(self) -> None:
        """Without routes a terminated connection uses the default pool."""
        (frontend,) = (configuration := settings()).frontends
        self.balancer.service.apply(evolve(configuration, frontends=(evolve(frontend, routes=()),)))
        self.balancer.client(tls=TlsInfo("TLSv1.3", server_name="a.example"))
        self.assertEqual(self.connected_hosts(), ["10.0.0.1"])
        self.balancer.accept()

    def test_client_hello_in_pieces(self) -> None:
        """A ClientHello that arrives byte by byte is parsed and forwarded in full."""
        hello = client_hello("a.example")
        client = self.balancer.client()
        for position in range(len(hello)):
            self.assertEqual(self.connected_hosts(), [])
            client.send(hello[position : position + 1])
        self.assertEqual(self.connected_hosts(), ["10.0.0.2"])
        client.send(b"then")
        server = self.balancer.accept()
        self.assertEqual(server.received(), hello + b"then")
        server.send(b"response")
        self.assertEqual(client.received(), b"response")

    def test_no_tls(self) -> None:
        """A connection without TLS is routed to the default pool immediately."""
        self.connect(b"SSH-2.0-x\r\n")
        self.assertEqual(self.connected_hosts(), ["10.0.0.1"])
        self.assertEqual(self.balancer.accept().received(), b"SSH-2.0-x\r\n")

    def test_silent_client(self) -> None:
        """A client that sends nothing is routed to the default pool after the header timeout."""
        client = self.connect()
        self.balancer.advance(3)
        self.assertEqual(self.connected_hosts(), [])
        self.balancer.advance(2.5)
        self.assertEqual(self.connected_hosts(), ["10.0.0.1"])
        self.balancer.accept().send(b"220 hello")
        self.assertEqual(client.received(), b"220 hello")

    def test_tunnel_timeout_before_the_header_timeout(self) -> None:
        """A sweep that finds both timeouts expired aborts, and connects no server."""
        self.balancer.service.default_frontend.factory.timeouts = FrontendTimeouts(
            header=1.7, tunnel=1.9
        )
        client = self.connect()
        # The tunnel timeout counts from 0.6 s before the first sweep, which is at 0.4 s. The
        # sweep at 2.4 s is the first that finds any timeout expired, and finds both.
        for _ in range(6):
            self.assertFalse(client.transport.aborted)
            self.balancer.clock.advance(0.4)
        self.assertTrue(client.transport.aborted)
        self.balancer.finish_closing()
        self.assertEqual(self.connected_hosts(), [])
        self.assertEqual([server.in_flight for server in self.balancer.servers], [0])

    def test_half_close_within_the_client_hello(self) -> None:
        """After EOF within the ClientHello the default pool is used, and EOF is passed on."""
        hello = client_hello("a.example")[:100]
        client = self.connect(hello)
        client.half_close()
        server = self.balancer.accept()
        self.assertEqual(self.connected_hosts(), ["10.0.0.1"])
        self.assertEqual(server.received(), hello)
        self.assertTrue(server.transport.write_closed)

    def test_reset_within_the_client_hello(self) -> None:
        """After a reset within the ClientHello no server is connected."""
        client = self.connect(client_hello("a.example")[:100])
        client.reset()
        self.balancer.advance(6)
        self.assertEqual(self.connected_hosts(), [])

    def test_stop_within_the_client_hello(self) -> None:
        """Stopping resets a connection that is in its preread."""
        client = self.connect(client_hello("a.example")[:100])
        self.balancer.stop()
        self.assertTrue(client.transport.aborted)

    def test_rate_limit_of_a_route(self) -> None:
        """The rate limit of a route applies to its connections only."""
        hello = client_hello("x.b.example")
        self.connect(hello)
        rejected = self.connect(hello)
        self.assertTrue(rejected.transport.closing)
        self.connect(client_hello("a.example"))
        self.assertEqual(self.connected_hosts(), ["10.0.0.3", "10.0.0.2"])

    def test_reload_within_the_client_hello(self) -> None:
        """A reload that removes all routes sends the connection to the default pool."""
        hello = client_hello("a.example")
        client = self.connect(hello[:50])
        frontend = FrontendSettings(bind=(), mode="tcp", pool="rest")
        self.balancer.service.apply(Settings((frontend,), settings().pools[:1]))
        client.send(hello[50:])
        self.assertEqual(self.connected_hosts(), ["10.0.0.1"])
        self.assertIsInstance(self.balancer.clock, Clock)


def certificate(folder: Path, name: str) -> Path:
    """A PEM file with a key and a self-signed certificate for `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def tls_server(pem: Path) -> ScriptedServer:
    """A TLS server that sends the name in its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pem))

    def serve(connection: socket.socket, number: int) -> None:
        """Complete the handshake and send the name."""
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.sendall(pem.stem.encode())
            wrapped.recv(100)

    return ScriptedServer(serve)


def test_sni_in_a_process(tmp_path: Path) -> None:
    """TLS passes through to the server whose certificate the client expects."""
    names = ("one.example", "two.example")
    pems = [certificate(tmp_path, name) for name in names]
    with tls_server(pems[0]) as one, tls_server(pems[1]) as two:
        config = tmp_path / "sni.toml"
        config.write_text(
            f"""
            [[frontend]]
            mode = "tcp"
            pool = "one"
            [[frontend.route]]
            host = "two.example"
            pool = "two"
            [[pool]]
            name = "one"
            upstreams = ["{one.address}"]
            [[pool]]
            name = "two"
            upstreams = ["{two.address}"]
            """
        )
        with run_balancer(tmp_path, "-c", str(config)) as running:
            for name, pem in zip(names, pems):
                # The client verifies the certificate of the server itself.
                context = ssl.create_default_context(cafile=str(pem))
                plain = socket.create_connection(("127.0.0.1", running.port), TIMEOUT)
                with context.wrap_socket(plain, server_hostname=name) as client:
                    assert client.recv(100) == name.encode()
