"""TCP connections, routed by the name of the server that a TLS client asks for."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path

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
from tests.helpers.memory import MemoryBalancer, Peer
from tests.helpers.processes import TIMEOUT, ScriptedServer, run_balancer


def client_hello(name: str | None) -> bytes:
    """The beginning of a TLS connection, as OpenSSL makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("nobody is there to shake hands with")


def settings() -> Settings:
    """One frontend; a.example and all below b.example have pools of their own."""

    def pool(name: str, host: str) -> PoolSettings:
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
    """Which server is asked, and what it gets."""

    def setUp(self) -> None:
        self.balancer = MemoryBalancer.from_settings(settings())
        self.addCleanup(self.balancer.stop)
        self.addCleanup(self.balancer.finish_closing)

    def asked(self) -> list[str]:
        return [str(one.address).partition(":")[0] for one in self.balancer.connectors]

    def connected(self, *pieces: bytes) -> Peer:
        client = self.balancer.client()
        client.send(*pieces)
        return client

    def test_by_name(self) -> None:
        for name, host in (
            ("a.example", "10.0.0.2"),
            ("x.b.example", "10.0.0.3"),
            ("b.example", "10.0.0.1"),
            ("other.example", "10.0.0.1"),
            (None, "10.0.0.1"),
        ):
            hello = client_hello(name)
            self.connected(hello + b"and more")
            self.assertEqual(self.asked()[-1], host, name)
            self.assertEqual(self.balancer.accept().received(), hello + b"and more")

    def test_in_pieces(self) -> None:
        hello = client_hello("a.example")
        client = self.balancer.client()
        for place in range(len(hello)):
            self.assertEqual(self.asked(), [])
            client.send(hello[place : place + 1])
        self.assertEqual(self.asked(), ["10.0.0.2"])
        client.send(b"then")
        server = self.balancer.accept()
        self.assertEqual(server.received(), hello + b"then")
        server.send(b"answer")
        self.assertEqual(client.received(), b"answer")

    def test_who_does_not_speak_tls(self) -> None:
        self.connected(b"SSH-2.0-x\r\n")
        self.assertEqual(self.asked(), ["10.0.0.1"])
        self.assertEqual(self.balancer.accept().received(), b"SSH-2.0-x\r\n")

    def test_who_says_nothing_waits_for_the_server_to_speak(self) -> None:
        client = self.connected()
        self.balancer.advance(3)
        self.assertEqual(self.asked(), [])
        self.balancer.advance(2.5)
        self.assertEqual(self.asked(), ["10.0.0.1"])
        self.balancer.accept().send(b"220 hello")
        self.assertEqual(client.received(), b"220 hello")

    def test_who_is_silent_for_too_long_in_both_ways(self) -> None:
        self.balancer.service.default_frontend.factory.timeouts = FrontendTimeouts(
            header=4, tunnel=2
        )
        client = self.connected()
        # A sweep that is late finds both.
        for seconds in (1, 3.5):
            self.balancer.clock.advance(seconds)
        self.assertTrue(client.transport.aborted)
        self.balancer.finish_closing()
        self.assertEqual(self.asked(), [])
        self.assertEqual([server.in_flight for server in self.balancer.servers], [0])

    def test_who_says_only_half_of_it(self) -> None:
        hello = client_hello("a.example")[:100]
        client = self.connected(hello)
        client.half_close()
        server = self.balancer.accept()
        self.assertEqual(self.asked(), ["10.0.0.1"])
        self.assertEqual(server.received(), hello)
        self.assertTrue(server.transport.write_closed)

    def test_who_leaves_in_the_middle_of_it(self) -> None:
        client = self.connected(client_hello("a.example")[:100])
        client.reset()
        self.balancer.advance(6)
        self.assertEqual(self.asked(), [])

    def test_stop_in_the_middle_of_it(self) -> None:
        client = self.connected(client_hello("a.example")[:100])
        self.balancer.stop()
        self.assertTrue(client.transport.aborted)

    def test_limits_of_a_route(self) -> None:
        hello = client_hello("x.b.example")
        self.connected(hello)
        refused = self.connected(hello)
        self.assertTrue(refused.transport.closing)
        self.connected(client_hello("a.example"))
        self.assertEqual(self.asked(), ["10.0.0.3", "10.0.0.2"])

    def test_routes_that_change_in_the_middle_of_it(self) -> None:
        hello = client_hello("a.example")
        client = self.connected(hello[:50])
        frontend = FrontendSettings(bind=(), mode="tcp", pool="rest")
        self.balancer.service.apply(Settings((frontend,), settings().pools[:1]))
        client.send(hello[50:])
        self.assertEqual(self.asked(), ["10.0.0.1"])
        self.assertIsInstance(self.balancer.clock, Clock)


def certificate(folder: Path, name: str) -> Path:
    """A key and a certificate for `name`, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
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
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def tls_server(pem: Path) -> ScriptedServer:
    """Greets, under the name of its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pem))

    def serve(connection: socket.socket, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.sendall(pem.stem.encode())
            wrapped.recv(100)

    return ScriptedServer(serve)


def test_through_the_program(tmp_path: Path) -> None:
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
                # The client sees through to the server, and trusts only that one.
                context = ssl.create_default_context(cafile=str(pem))
                plain = socket.create_connection(("127.0.0.1", running.port), TIMEOUT)
                with context.wrap_socket(plain, server_hostname=name) as client:
                    assert client.recv(100) == name.encode()
