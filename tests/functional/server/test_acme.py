"""ACME within a balancer in memory: start, orders, challenges, reloads and drain."""

from __future__ import annotations

import ssl
from typing import Any, Callable
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred, execute
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.acme.certificate import Certificate
from balancebeam.acme.interfaces import (
    HTTP_01,
    TLS_ALPN_01,
    AcmeError,
    Cancellation,
    Challenge,
    ChallengePublisher,
)
from balancebeam.acme.storage import Storage
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    AcmeSettings,
    FrontendSettings,
    FrontendTlsSettings,
    PoolSettings,
    ServerSettings,
    Settings,
)
from balancebeam.process.options import CommandLineOptions
from balancebeam.server import acme
from balancebeam.server.service_tree import ServiceTree
from tests.helpers.acme import issue_certificate
from tests.helpers.certificates import shared_authority
from tests.helpers.files import temporary_directory
from tests.helpers.memory import GET, MemoryBalancer, MemoryTransport
from tests.helpers.tls_peer import TlsPeer, client_context

NAME = "a.example"
PATH = b"/.well-known/acme-challenge/token"
REDIRECT = FrontendSettings("redirect", bind=(), redirect_https=True)


class FakeClient:
    """
    An ACME client that publishes a challenge, and ends the order when the test says so.

    Attributes:
        orders: the name and the type of challenge of each order.
    """

    def __init__(self, settings: AcmeSettings, publisher: ChallengePublisher) -> None:
        self.settings = settings
        self.publisher = publisher
        self.orders: list[tuple[str, str]] = []
        self.validate: Callable[[], object] = lambda: None

    def obtain(self, name: str, challenge_type: str, cancelled: Cancellation) -> Certificate:
        """Issue a certificate after the validation."""
        self.orders.append((name, challenge_type))
        challenge = Challenge(challenge_type, name, "token", "token.key")
        self.publisher.publish(challenge)
        try:
            self.validate()
        finally:
            self.publisher.withdraw(challenge)
        if cancelled.is_set():
            raise AcmeError("cancelled")
        return issue_certificate(name)

    def renewal_time(self, certificate: Certificate, cancelled: Cancellation) -> float | None:
        """Suggest none."""
        return None


class AcmeTestCase(SynchronousTestCase):
    """A balancer whose ACME client is a fake, and whose threads run when the test says so."""

    def setUp(self) -> None:
        self.folder = temporary_directory(self)
        self.account = AcmeSettings(str(self.folder / "acme"), "https://acme.example/dir")
        self.clients: list[FakeClient] = []
        self.threads: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.patch(acme, "load_client", self.load_client)
        self.patch(acme, "DaemonThreads", lambda reactor: self.run_in_thread)
        self.patch(ServiceTree, "defer_to_thread", lambda tree, *call: execute(*call))

    def load_client(
        self, settings: AcmeSettings, storage: Storage, publisher: ChallengePublisher, agent: str
    ) -> FakeClient:
        """Build a client; an unknown CA file is an error, as with the real one."""
        self.assertRegex(agent, r"^balancebeam/\d")
        if settings.ca is not None:
            raise ConfigError(f"[acme]: invalid ca {settings.ca!r}")
        self.clients.append(FakeClient(settings, publisher))
        return self.clients[-1]

    def run_in_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Record a call."""
        result: Deferred[Any] = Deferred()
        self.threads.append((function, result))
        return result

    def finish(self) -> None:
        """Run the oldest recorded call, and deliver its result."""
        function, result = self.threads.pop(0)
        try:
            value = function()
        except AcmeError as error:
            result.errback(error)
        else:
            result.callback(value)

    def settings(self, *names: str, redirect: bool = False, **account: Any) -> Settings:
        """The settings of a balancer with a frontend for these names."""
        tls = FrontendTlsSettings(acme=names, self_signed=not names)
        frontends = [FrontendSettings("web", bind=(), pool="app", tls=tls)]
        frontends += [REDIRECT] * redirect
        return Settings(
            tuple(frontends),
            (PoolSettings("app", (ServerSettings(TcpAddress("10.0.0.1", 80)),)),),
            acme=evolve(self.account, **account),
        )

    def start(self, *names: str, **settings: Any) -> MemoryBalancer:
        """Start a balancer with a frontend for these names."""
        return self.start_settings(self.settings(*names, **settings))

    def start_settings(self, settings: Settings) -> MemoryBalancer:
        """Start a balancer with exactly these settings."""
        self.balancer = MemoryBalancer.from_settings(settings)
        self.addCleanup(self.balancer.stop)
        self.tree = self.balancer.service
        return self.balancer

    def store(self, name: str = NAME) -> Certificate:
        """Store a certificate, as an earlier process did."""
        certificate = issue_certificate(name)
        Storage(self.account.storage, self.account.directory).save(name, certificate)
        return certificate

    def served(self) -> list[tuple[tuple[str, ...], str]]:
        """The names and the source of each certificate that is served."""
        contexts = self.tree.certificates.contexts("web")
        assert contexts is not None
        return [(item.names, item.source) for item in contexts.active.certificates]

    def assert_served(self, *sources: str) -> None:
        """The certificates are from these sources."""
        self.assertEqual([source for _, source in self.served()], list(sources))


class StartTests(AcmeTestCase):
    """The start, and the first certificates."""

    def test_no_names(self) -> None:
        """Without names there is no service, and the client is not loaded."""
        self.start()
        self.assertEqual(self.clients, [])
        self.assertIsNone(self.tree.acme)
        self.assertRaises(KeyError, self.tree.getServiceNamed, "acme")

    def test_self_signed_until_obtained(self) -> None:
        """The order begins at the start, and its certificate replaces the self-signed one."""
        self.start(NAME)
        self.assertIs(self.tree.getServiceNamed("acme"), self.tree.acme)
        self.assert_served("self-signed certificate")
        self.finish()
        self.assertEqual(self.clients[0].orders, [(NAME, TLS_ALPN_01)])
        self.assert_served(f"ACME certificate of {NAME}")

    def test_stored_certificate(self) -> None:
        """A stored certificate is served when the start is complete, without an order."""
        self.store()
        self.start(NAME)
        self.assert_served(f"ACME certificate of {NAME}")
        self.assertEqual(self.threads, [])

    def test_names_of_all_frontends(self) -> None:
        """A name of two frontends is ordered once, and served by both."""
        settings = self.settings(NAME, "b.example")
        (web,) = settings.frontends
        other = evolve(web, name="other", tls=FrontendTlsSettings(acme=(NAME,)), mode="http")
        self.start_settings(evolve(settings, frontends=(web, other)))
        self.assertEqual(len(self.threads), 2)
        self.finish()
        contexts = self.tree.certificates.contexts("other")
        assert contexts is not None
        (certificate,) = contexts.active.certificates
        self.assertEqual(certificate.source, f"ACME certificate of {NAME}")

    def test_no_account(self) -> None:
        """A balancer with names and without an account is not built."""
        settings = evolve(self.settings(NAME), acme=None)
        error = self.assertRaises(ConfigError, MemoryBalancer.from_settings, settings)
        self.assertIn("frontend web: tls.acme: no ACME account", str(error))

    def test_invalid_account(self) -> None:
        """A balancer with an invalid account is not built."""
        settings = self.settings(NAME, ca="missing.pem")
        self.assertRaises(ConfigError, MemoryBalancer.from_settings, settings)


class ChallengeTests(AcmeTestCase):
    """How challenges of orders are served."""

    def test_http_challenge(self) -> None:
        """With a redirect to https, http-01 is preferred, and the redirect serves it."""
        self.start(NAME, redirect=True)
        responses: list[bytes] = []

        def request() -> None:
            """Send a validation request."""
            client = self.balancer.client(frontend="redirect")
            client.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (PATH, NAME.encode()))
            responses.append(client.received())

        self.clients[0].validate = request
        self.finish()
        request()
        self.assertEqual(self.clients[0].orders, [(NAME, HTTP_01)])
        self.assertTrue(responses[0].startswith(b"HTTP/1.1 200 "), responses)
        self.assertTrue(responses[0].endswith(b"\r\n\r\ntoken.key"), responses)
        self.assertTrue(responses[1].startswith(b"HTTP/1.1 308 "), responses)

    def test_tls_challenge(self) -> None:
        """The frontends select the context of a tls-alpn-01 challenge while it is published."""
        self.start(NAME)
        contexts = self.tree.certificates.contexts("web")
        assert contexts is not None
        names: list[list[str]] = []
        self.clients[0].validate = lambda: names.append(list(contexts.challenges))
        self.finish()
        self.assertEqual((names, contexts.challenges), ([[NAME]], {}))

    def test_validation_connection_carries_no_requests(self) -> None:
        """
        A frontend that requires client certificates accepts validation connections without one,
        and closes them after the handshake; requests on them are not forwarded.
        """
        ca = self.folder / "ca.pem"
        ca.write_bytes(shared_authority().root)
        settings = self.settings(NAME)
        (web,) = settings.frontends
        tls = FrontendTlsSettings(acme=(NAME,), client_ca=str(ca))
        self.start_settings(evolve(settings, frontends=(evolve(web, tls=tls),)))
        closed = []

        def send_request() -> None:
            """Send a request together with the last flight of the handshake."""
            context = client_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["acme-tls/1"])
            factory = self.tree.frontends["web"].tls_factory
            transport = MemoryTransport(factory.build_channel("192.0.2.1"))
            client = TlsPeer(transport, context, server_hostname=NAME)
            transport.protocol.makeConnection(transport)
            with self.assertRaises(ssl.SSLWantReadError):
                client.engine.do_handshake()
            client.deliver(client.outgoing.read())
            client.collect()
            client.engine.do_handshake()
            client.engine.write(GET)
            client.deliver(client.outgoing.read())
            client.send(GET)
            closed.append((client.received(), client.eof, transport.closing))
            client.finish_closing()

        self.clients[0].validate = send_request
        self.finish()
        self.assertEqual(closed, [(b"", True, True)])
        self.assertEqual(self.balancer.connectors, [])
        self.assertFalse(self.tree.frontends["web"].has_connections)

    def test_other_type_after_reload(self) -> None:
        """A reload that removes the redirect leaves tls-alpn-01 for the next order."""
        self.start(NAME, redirect=True)
        self.finish()
        self.tree.apply(self.settings(NAME, "b.example"))
        self.finish()
        self.assertEqual(self.clients[0].orders, [(NAME, HTTP_01), ("b.example", TLS_ALPN_01)])


class ReloadTests(AcmeTestCase):
    """Reloads, in the middle of an order too."""

    def test_same_account(self) -> None:
        """With the same account the service and its order in progress stay."""
        self.start(NAME)
        service = self.tree.acme
        self.tree.apply(self.settings(NAME))
        self.assertIs(self.tree.acme, service)
        self.assertEqual(len(self.threads), 1)
        self.finish()
        self.assert_served(f"ACME certificate of {NAME}")

    def test_other_account(self) -> None:
        """With another account the order is cancelled, and a new service begins its own."""
        self.start(NAME)
        service = self.tree.acme
        self.tree.apply(self.settings(NAME, email="b@example"))
        self.assertIsNot(self.tree.acme, service)
        self.assertIs(self.tree.getServiceNamed("acme"), self.tree.acme)
        self.finish()
        self.assert_served("self-signed certificate")
        self.finish()
        self.assert_served(f"ACME certificate of {NAME}")
        self.assertEqual(self.clients[-1].orders, [(NAME, TLS_ALPN_01)])

    def test_other_server(self) -> None:
        """The certificate of the previous ACME server is served until there is a new one."""
        self.store()
        self.start(NAME)
        (old,) = self.tree.certificates.expiry_times().values()
        self.tree.apply(self.settings(NAME, directory="https://other.example/dir"))
        self.assertEqual(list(self.tree.certificates.expiry_times().values()), [old])
        self.assertEqual(len(self.threads), 1)

    def test_names_added_and_removed(self) -> None:
        """The first name starts the service, the last one stops it and cancels its order."""
        self.start()
        self.tree.apply(self.settings(NAME))
        self.assert_served("self-signed certificate")
        self.tree.apply(self.settings())
        self.assertIsNone(self.tree.acme)
        self.assertRaises(KeyError, self.tree.getServiceNamed, "acme")
        self.finish()
        self.assert_served("self-signed certificate")
        self.store("b.example")
        self.tree.apply(self.settings("b.example"))
        self.assert_served("ACME certificate of b.example")

    def test_rejected_reload(self) -> None:
        """An invalid account rejects a reload; the service and its order stay."""
        self.start(NAME)
        service = self.tree.acme
        changed = self.settings(NAME, "b.example", ca="missing.pem")
        self.assertRaises(ConfigError, self.tree.apply, changed)
        self.assertIs(self.tree.acme, service)
        self.finish()
        self.assert_served(f"ACME certificate of {NAME}")

    def test_reload_rejected_by_another_step(self) -> None:
        """If another step rejects a reload, no order of the new names begins."""
        self.start()
        invalid = FrontendTlsSettings(acme=(NAME,), client_ca=str(self.folder / "missing.pem"))
        changed = self.settings(NAME)
        (web,) = changed.frontends
        changed = evolve(changed, frontends=(evolve(web, tls=invalid),))
        self.assertRaises(ConfigError, self.tree.apply, changed)
        self.assertIsNone(self.tree.acme)
        self.assertEqual(self.threads, [])


class StopTests(AcmeTestCase):
    """Drain and stop in the middle of an order."""

    def test_drain(self) -> None:
        """A drain cancels orders and schedules no other; a second start begins again."""
        self.start(NAME)
        self.tree.drain()
        self.finish()
        self.assert_served("self-signed certificate")
        self.balancer.advance(100)
        self.assertEqual(self.threads, [])
        self.tree.stopService()
        self.tree.startService()
        self.assertEqual(len(self.threads), 1)

    def test_stop(self) -> None:
        """A result after the stop is ignored, and no timer is left."""
        self.start(NAME)
        self.balancer.stop()
        self.finish()
        self.assert_served("self-signed certificate")
        self.assertEqual(self.threads, [])
        self.tree.startService()

    def test_failed_order(self) -> None:
        """A failure is one line in the log; the next attempt follows."""
        self.start(NAME)

        def fail() -> None:
            """Reject the validation."""
            raise AcmeError("rejected")

        self.clients[0].validate = fail
        with capturedLogs() as events:
            self.finish()
        errors = [formatEvent(event) for event in events if event["log_level"] == LogLevel.error]
        self.assertEqual(len(errors), 1)
        self.assertIn(f"certificate of {NAME} not obtained by tls-alpn-01: rejected", errors[0])
        self.balancer.advance(100)
        self.assertEqual(len(self.threads), 1)

    def test_unusable_certificate(self) -> None:
        """A certificate that the frontends cannot use is an error; the present one stays."""
        self.start(NAME)

        def reject(name: str, chain: bytes, key: bytes) -> None:
            """Reject every certificate."""
            raise ValueError("key too small")

        assert self.tree.acme is not None
        self.tree.acme._certificate_obtained = reject
        with capturedLogs() as events:
            self.finish()
        self.assertIn(f"certificate of {NAME} not applied: key too small", map(formatEvent, events))
        self.assert_served("self-signed certificate")


class CheckTests(SynchronousTestCase):
    """`--check` with names for ACME."""

    def check(self, *options: str) -> list[str]:
        """The problems that `--check` reports."""
        arguments = ["--upstream", "127.0.0.1:1", "--acme", NAME, "--check", *options]
        error = self.assertRaises(ConfigError, CommandLineOptions().parseOptions, arguments)
        assert isinstance(error, ConfigError)
        return error.problems

    def test_missing_library(self) -> None:
        """Without the extra, the error has the command that installs it."""
        with patch.dict("sys.modules", {"balancebeam.acme.client": None}):
            (problem,) = self.check()
        self.assertIn("pip install 'balancebeam[acme]'", problem)

    def test_invalid_ca(self) -> None:
        """A CA file that is missing is reported; without names it is not used."""
        folder = temporary_directory(self)
        config = folder / "config.toml"
        config.write_text(f'[acme]\nstorage = "{folder}"\nca = "{folder}/ca.pem"\n')
        (problem,) = self.check("--config", str(config))
        self.assertIn(f"[acme]: invalid ca '{folder}/ca.pem'", problem)
        arguments = ["--config", str(config), "--upstream", "127.0.0.1:1", "--check"]
        self.assertRaises(SystemExit, CommandLineOptions().parseOptions, arguments)
