"""The certificate service: start, reloads, watched files, ACME and expiry."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Any, Callable

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.frontend_settings import FrontendSettings
from balancebeam.core.settings import PoolSettings, ServerSettings, Settings
from balancebeam.core.tls_settings import CertificateSource, FrontendTlsSettings
from balancebeam.observability.metrics import metrics_text
from balancebeam.process.options import CommandLineOptions
from balancebeam.protocols.client_hello import ClientHello
from balancebeam.server.certificates import CHECK_INTERVAL, CertificateService
from balancebeam.tls.selection import FrontendContexts
from tests.helpers.certificates import (
    DAY,
    CertificateAuthority,
    IssuedCertificate,
    ec_key,
    encode_key,
    shared_authority,
    write,
)
from tests.helpers.memory import MemoryBalancer
from tests.helpers.metrics import parse_metrics
from tests.helpers.tls import client_context, handshake

CA = shared_authority()

# A time at which certificates of the authority are valid, for `Clock`.
NOW = 2e9


def issue(*names: str, days: float = 90) -> IssuedCertificate:
    """A certificate that is valid at `NOW`, for some days."""
    return CA.issue(*names, not_before=NOW - DAY, not_after=NOW + days * DAY)


class CertificateServiceTestCase(SynchronousTestCase):
    """A certificate service with the frontend "web", whose certificate is in a file."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.threads: list[Callable[[], None]] = []
        self.slow_threads = False
        self.service = CertificateService(self.clock, self.clock.seconds, self.defer_to_thread)
        self.site = issue("a.example")
        self.settings = FrontendTlsSettings((CertificateSource(self.write(self.site)),))

    def write(self, issued: IssuedCertificate, name: str = "site.pem") -> str:
        """Write a file with chain and key, and another modification time than before."""
        return self.touch(issued.write_file(self.folder / name))

    def touch(self, path: str) -> str:
        """Give a file a modification time of its own."""
        self.clock.rightNow += 0.001
        os.utime(path, (self.clock.rightNow, self.clock.rightNow))
        return path

    def defer_to_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run a call at once, or complete it later if `slow_threads` is set."""
        result = call(*arguments)
        if not self.slow_threads:
            return succeed(result)
        deferred: Deferred[Any] = Deferred()
        self.threads.append(lambda: deferred.callback(result))
        return deferred

    def apply(self, settings: FrontendTlsSettings | None = None, **others: Any) -> None:
        """Load the settings, as the start and each reload do."""
        frontends = {"web": settings or self.settings, **others}
        self.service.commit(
            self.service.prepare(
                FrontendSettings(name, bind=(), tls=tls) for name, tls in frontends.items()
            )
        )

    def start(self, settings: FrontendTlsSettings | None = None) -> None:
        """Load the settings and start the service."""
        self.apply(settings)
        self.service.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop the service; no timer is left."""
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def contexts(self, frontend: str = "web") -> FrontendContexts:
        """The contexts of a frontend."""
        contexts = self.service.contexts(frontend)
        assert contexts is not None
        return contexts

    def pass_interval(self) -> list[tuple[LogLevel, str]]:
        """Let the service check the files once; return levels and texts of what it logs."""
        with capturedLogs() as events:
            self.clock.advance(CHECK_INTERVAL)
        return [(event["log_level"], formatEvent(event)) for event in events]

    def assert_served(self, issued: IssuedCertificate, name: str = "a.example") -> None:
        """New clients get a certificate."""
        client = client_context()
        client.verify_mode = ssl.CERT_NONE
        self.assertEqual(handshake(self.contexts(), client, name).certificate, issued.der)


class ReloadTests(CertificateServiceTestCase):
    """Settings that are loaded."""

    def test_contexts(self) -> None:
        """Each frontend with TLS has contexts of its own, and plain frontends have none."""
        self.apply(other=self.settings)
        self.assert_served(self.site)
        self.assertIsNot(self.contexts(), self.contexts("other"))
        self.assertIsNone(self.service.contexts("plain"))
        hello = ClientHello("a.example")
        self.assertIsNot(self.contexts().select(hello), self.contexts("other").select(hello))

    def test_reload(self) -> None:
        """A reload reads renewed certificates into the same contexts, and logs them."""
        self.start()
        contexts, renewed = self.contexts(), issue("a.example")
        self.write(renewed)
        with capturedLogs() as events:
            self.apply()
        self.assertIs(self.contexts(), contexts)
        self.assert_served(renewed)
        (event,) = events
        self.assertIn("certificate a.example of frontend web reloaded", formatEvent(event))

    def test_broken_file(self) -> None:
        """A reload with a broken file is rejected with frontend, file and reason."""
        self.start()
        path = write(self.folder / "site.pem", self.site.chain + encode_key(ec_key()))
        error = self.assertRaises(ConfigError, self.apply)
        self.assertEqual(
            error.problems,
            [f"frontend web: {path}: private key does not match the certificate"],
        )
        self.assert_served(self.site)

    def test_no_certificate(self) -> None:
        """A frontend without any certificate is rejected."""
        error = self.assertRaises(ConfigError, self.apply, FrontendTlsSettings())
        self.assertEqual(error.problems, ["frontend web: no certificate"])

    def test_self_signed(self) -> None:
        """A self-signed certificate is generated once, and replaced before it expires."""
        settings = FrontendTlsSettings(self_signed=True)
        self.start(settings)
        (first,) = self.contexts().active.certificates
        self.assertEqual(first.names, ("localhost",))
        self.apply(settings)
        self.assertEqual(self.contexts().active.certificates, (first,))
        self.clock.rightNow += 340 * DAY
        self.pass_interval()
        self.assertNotEqual(self.contexts().active.certificates, (first,))

    def test_removed_frontend(self) -> None:
        """Without frontends with TLS, nothing is watched."""
        self.start()
        self.service.commit({})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.apply()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class WatchTests(CertificateServiceTestCase):
    """Files that change without a reload."""

    def test_interval(self) -> None:
        """A change is noticed within a minute, also if a check has just begun."""
        self.assertLessEqual(CHECK_INTERVAL, 30)

    def test_renewed_certificate(self) -> None:
        """A changed file is read, logged, and used by new connections."""
        self.start()
        self.assertEqual(self.pass_interval(), [])
        renewed = issue("a.example")
        self.write(renewed)
        ((level, text),) = self.pass_interval()
        self.assertEqual(level, LogLevel.info)
        self.assertRegex(text, "^certificate a.example of frontend web reloaded: valid until 2033-")
        self.assert_served(renewed)
        self.assertEqual(self.pass_interval(), [])

    def test_replaced_link(self) -> None:
        """A symbolic link to another directory is noticed, as certbot and Kubernetes make them."""
        renewed, live = issue("a.example"), self.folder / "live"
        self.site.write_directory(self.folder / "1")
        renewed.write_directory(self.folder / "2")
        live.symlink_to("1")
        self.start(FrontendTlsSettings((CertificateSource(str(live)),)))
        live.unlink()
        live.symlink_to("2")
        self.assertEqual(len(self.pass_interval()), 1)
        self.assert_served(renewed)

    def test_broken_file(self) -> None:
        """A broken file is logged once and changes nothing; its repair is noticed."""
        self.start()
        path = write(self.folder / "site.pem", self.site.chain)
        ((level, text),) = self.pass_interval()
        self.assertEqual(level, LogLevel.error)
        self.assertEqual(text, f"certificates of frontend web not reloaded: {path}: no private key")
        self.assertEqual(self.pass_interval(), [])
        self.assert_served(self.site)
        os.unlink(path)
        ((level, text),) = self.pass_interval()
        self.assertIn("no such file or directory", text)
        renewed = issue("a.example")
        self.write(renewed)
        self.assertEqual(len(self.pass_interval()), 1)
        self.assert_served(renewed)

    def test_touched_file(self) -> None:
        """A file with the same content is not logged as reloaded."""
        self.start()
        self.write(self.site)
        self.assertEqual(self.pass_interval(), [])

    def test_client_ca(self) -> None:
        """A changed file of client CA certificates applies to new connections."""
        clients = [CertificateAuthority("1"), CertificateAuthority("2")]
        path = write(self.folder / "clients.pem", clients[0].root)
        self.start(evolve(self.settings, client_ca=path))
        self.touch(write(self.folder / "clients.pem", clients[1].root))
        ((_, text),) = self.pass_interval()
        self.assertEqual(text, "client CA certificates of frontend web reloaded")
        client = client_context()
        client.verify_mode = ssl.CERT_NONE
        for authority, accepted in zip(clients, (False, True)):
            own = authority.issue("c", client=True)
            client.load_cert_chain(own.write_file(self.folder / "client.pem"))
            if accepted:
                self.assertTrue(handshake(self.contexts(), client).server.getpeercert(True))
            else:
                self.assertRaises(ssl.SSLError, handshake, self.contexts(), client)

    def test_reload_during_a_check(self) -> None:
        """The result of a thread that began before a reload is discarded."""
        self.start()
        self.slow_threads = True
        old, new = issue("a.example"), issue("a.example")
        self.write(old)
        self.pass_interval()
        self.write(new)
        self.apply()
        (finish,) = self.threads
        finish()
        self.assert_served(new)
        self.slow_threads = False
        self.assertEqual(self.pass_interval(), [])
        self.assert_served(new)

    def test_stop_during_a_check(self) -> None:
        """A thread that ends after the stop has no effect, also after another start."""
        self.start()
        self.slow_threads = True
        self.write(issue("a.example"))
        self.pass_interval()
        self.service.stopService()
        self.service.startService()
        (finish,) = self.threads
        finish()
        self.assert_served(self.site)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_slow_check(self) -> None:
        """A check that takes long is not joined by another one."""
        self.start()
        self.slow_threads = True
        for _ in range(3):
            self.pass_interval()
        self.assertEqual(len(self.threads), 1)

    def test_failing_check(self) -> None:
        """An unexpected failure is logged, and the next check follows."""
        self.start()

        def fail(*arguments: object) -> Deferred[Any]:
            raise ZeroDivisionError

        self.service._defer_to_thread = fail
        for _ in range(2):
            self.pass_interval()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ExpiryTests(CertificateServiceTestCase):
    """Certificates that expire."""

    def test_warnings(self) -> None:
        """An expiring certificate is warned about at start and once a day."""
        path = self.write(issue("a.example", days=13))
        self.apply()
        with capturedLogs() as events:
            self.service.startService()
        self.addCleanup(self.stop)
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertIn(f"frontend web: {path}: certificate expires on", formatEvent(event))
        intervals = round(DAY / CHECK_INTERVAL)
        counts = [len(self.pass_interval()) for _ in range(2 * intervals)]
        self.assertEqual(sum(counts[:intervals]), 1)
        self.assertEqual(sum(counts), 2)

    def test_metrics(self) -> None:
        """Metrics have the end of each certificate, the earliest of several with equal names."""
        first, second = issue("a.example", days=5), issue("a.example", "b.example", days=9)
        sources = [CertificateSource(self.write(first, "1"))]
        sources.append(CertificateSource(self.write(second, "2")))
        self.apply(FrontendTlsSettings(tuple(sources)))
        self.assertEqual(self.service.expiry_times(), {("web", "a.example"): NOW + 5 * DAY})


class AcmeTests(CertificateServiceTestCase):
    """Certificates from ACME."""

    def test_obtained_certificate(self) -> None:
        """A self-signed certificate is served until ACME has obtained one, also after reloads."""
        settings = FrontendTlsSettings(acme=("a.example",))
        self.start(settings)
        (pending,) = self.contexts().active.certificates
        self.assertEqual(
            (pending.names, pending.source), (("a.example",), "self-signed certificate")
        )
        self.service.set_acme_certificate("a.example", self.site.chain, self.site.key)
        self.assert_served(self.site)
        self.apply(settings)
        self.assert_served(self.site)
        self.assertEqual(self.pass_interval(), [])

    def test_invalid_certificate(self) -> None:
        """A certificate that cannot be used raises, and changes nothing."""
        self.start(FrontendTlsSettings(acme=("a.example",)))
        set_certificate = self.service.set_acme_certificate
        set_certificate("a.example", self.site.chain, self.site.key)
        other = issue("a.example")
        self.assertRaises(ValueError, set_certificate, "a.example", other.chain, self.site.key)
        self.assert_served(self.site)

    def test_files_and_acme(self) -> None:
        """A name that a file has already needs no self-signed certificate."""
        settings = evolve(self.settings, acme=("a.example", "b.example"))
        self.start(settings)
        names = [item.names for item in self.contexts().active.certificates]
        self.assertEqual(names, [("a.example",), ("b.example",)])


class BalancerTests(CertificateServiceTestCase):
    """The service within a balancer, and the command line."""

    def balancer_settings(self, **tls: Any) -> Settings:
        """The settings of a balancer with TLS."""
        frontend = FrontendSettings("web", bind=(), tls=evolve(self.settings, **tls))
        return Settings(
            (frontend,), (PoolSettings("app", (ServerSettings(TcpAddress("10.0.0.1", 80)),)),)
        )

    def test_balancer(self) -> None:
        """A balancer reads certificates at its start, exposes their end, and reloads them."""
        balancer = MemoryBalancer.from_settings(self.balancer_settings())
        self.addCleanup(balancer.stop)
        samples = parse_metrics(metrics_text(balancer.service))
        labels = {"frontend": "web", "name": "a.example"}
        key = ("balancebeam_certificate_not_after_timestamp_seconds", frozenset(labels.items()))
        self.assertEqual(samples[key], round(NOW + 90 * DAY))
        write(self.folder / "site.pem", b"")
        error = self.assertRaises(
            ConfigError, balancer.service.apply, self.balancer_settings(alpn=("x",))
        )
        self.assertIn("not a PEM file", str(error))
        service: Any = balancer.service.getServiceNamed("certificates")
        (named,) = service.contexts("web").active.contexts
        self.assertEqual(named.options.alpn, ("h2", "http/1.1"))

    def test_start(self) -> None:
        """A balancer with an unreadable certificate is not built."""
        write(self.folder / "site.pem", b"")
        error = self.assertRaises(
            ConfigError, MemoryBalancer.from_settings, self.balancer_settings()
        )
        self.assertEqual(error.problems, [f"frontend web: {self.folder}/site.pem: not a PEM file"])

    def test_check(self) -> None:
        """--check reports certificates that cannot be used."""
        config = self.folder / "config.toml"
        config.write_text(
            '[[frontend]]\nname = "web"\nbind = ["127.0.0.1:1"]\npool = "app"\n'
            f'[frontend.tls]\ncertificates = ["{self.folder}/missing.pem"]\n'
            '[[pool]]\nname = "app"\nupstreams = ["10.0.0.1:80"]\n'
        )
        arguments = ["--config", str(config), "--check"]
        error = self.assertRaises(ConfigError, CommandLineOptions().parseOptions, arguments)
        self.assertEqual(
            error.problems,
            [f"frontend web: {self.folder}/missing.pem: cannot be read: no such file or directory"],
        )
