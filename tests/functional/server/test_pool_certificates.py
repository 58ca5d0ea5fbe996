"""Files of `[pool.tls]`: changes are detected, and used for new connections."""

from __future__ import annotations

import os
import ssl
from typing import Any, Callable

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    CertificateSource,
    FrontendTlsSettings,
    PoolSettings,
    PoolTlsSettings,
    ServerSettings,
    ServerSource,
)
from balancebeam.server.certificates import CHECK_INTERVAL
from balancebeam.server.pool_certificates import PoolCertificateService
from balancebeam.upstream import pool_tls
from balancebeam.upstream.pool_tls import PoolTls
from tests.helpers.certificates import CertificateAuthority, shared_authority, write
from tests.helpers.memory import OK, MemoryBalancer
from tests.helpers.tls_server import TlsTestCase

HTTPS = ServerSettings(TcpAddress("10.0.0.9", 443), tls=True)


class WatchTestCase(TlsTestCase):
    """A balancer whose pool has a CA file, and the service that watches it."""

    def setUp(self) -> None:
        super().setUp()
        self.running = self.balancer()
        self.pool = self.running.service.default_pool
        self.clock = Clock()
        self.pending: list[Callable[[], None]] = []
        self.slow = False
        self.service = PoolCertificateService(
            self.clock, lambda: self.running.service.pools, self.defer_to_thread
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.modified = 1e9

    def defer_to_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run a call at once, or complete it later if `slow` is set."""
        result = call(*arguments)
        if not self.slow:
            return succeed(result)
        deferred: Deferred[Any] = Deferred()
        self.pending.append(lambda: deferred.callback(result))
        return deferred

    def replace_ca(self, content: bytes) -> None:
        """Write the CA file, with another modification time than before."""
        write(self.directory / "ca.pem", content)
        self.modified += 1
        os.utime(self.ca, (self.modified, self.modified))

    def pass_interval(self) -> list[str]:
        """Let the service check the files once; return what it logs."""
        with capturedLogs() as events:
            self.clock.advance(CHECK_INTERVAL)
        return [str(formatEvent(event)) for event in events]


class WatchTests(WatchTestCase):
    """Checks of the files between reloads."""

    def test_new_ca(self) -> None:
        """A new CA verifies new connections; idle ones, and the session, are dropped."""
        client, server = self.request(self.running, self.context("10.0.0.1"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertEqual(len(self.pool.server_set.servers[0].idle_connections), 1)
        other = CertificateAuthority("Other CA")
        self.replace_ca(other.root)
        self.assertEqual(self.pass_interval(), ["pool app: tls: files reloaded"])
        self.assertEqual(self.pool.server_set.servers[0].idle_connections, {})
        self.running.finish_closing()
        client, server = self.request(self.running, self.context_for(other.issue("10.0.0.1")))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_unchanged(self) -> None:
        """Without a change, and after one of the modification time only, nothing happens."""
        tls = self.pool.find_tls(self.pool.server_set.servers[0])
        self.assertEqual(self.pass_interval(), [])
        self.replace_ca(shared_authority().root)
        self.assertEqual(self.pass_interval(), [])
        self.assertIs(self.pool.find_tls(self.pool.server_set.servers[0]), tls)

    def test_broken_file(self) -> None:
        """A broken or missing file changes nothing, and is logged once; a later one is used."""
        tls = self.pool.find_tls(self.pool.server_set.servers[0])
        for change in (
            lambda: self.replace_ca(b"broken"),
            lambda: os.remove(self.ca),
        ):
            change()
            (line,) = self.pass_interval()
            self.assertTrue(line.startswith("TLS to servers not reloaded: pool app: tls: "), line)
            self.assertIn(self.ca, line)
            self.assertEqual(self.pass_interval(), [])
            self.assertIs(self.pool.find_tls(self.pool.server_set.servers[0]), tls)
        self.replace_ca(CertificateAuthority("Other CA").root)
        self.assertEqual(self.pass_interval(), ["pool app: tls: files reloaded"])

    def test_reload_during_check(self) -> None:
        """The result of a check is discarded if a reload has read the files meanwhile."""
        self.slow = True
        self.replace_ca(CertificateAuthority("Other CA").root)
        self.pass_interval()
        self.reload(self.running, self.settings(PoolTlsSettings(verify=False)))
        current = self.pool.connections.tls
        for finish in self.pending:
            finish()
        self.assertIs(self.pool.connections.tls, current)

    def test_timer(self) -> None:
        """Files are checked only while a pool has some, and never after the end."""
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.reload(self.running, self.settings(PoolTlsSettings(verify=False)))
        self.service.update()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.reload(self.running, self.settings())
        self.service.update()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_balancer(self) -> None:
        """The service is part of the balancer, and reloads start and stop its timer."""
        service = self.running.service.getServiceNamed("pool-certificates")
        self.assertIsInstance(service, PoolCertificateService)
        self.assertTrue(service.running)

        def timers() -> int:
            return len(self.running.clock.getDelayedCalls())

        before = timers()
        self.reload(self.running, self.settings(PoolTlsSettings(verify=False)))
        self.assertEqual(timers(), before - 1)


class PreparationTests(TlsTestCase):
    """Contexts are built before a request needs them."""

    def plain_balancer(self) -> MemoryBalancer:
        settings = self.settings()
        (pool,) = settings.pools
        balancer = MemoryBalancer.from_settings(evolve(settings, pools=(evolve(pool, tls=None),)))
        self.addCleanup(balancer.stop)
        return balancer

    def test_registered_server(self) -> None:
        """The context of the first server with TLS is built when it is added."""
        balancer = self.plain_balancer()
        pool = balancer.service.default_pool
        self.assertIsNone(pool.connections.tls.client)
        server = pool.server_set.add(HTTPS, ServerSource.REGISTERED)
        client = pool.connections.tls.client
        assert client is not None
        found = pool.find_tls(server)
        assert found is not None
        self.assertIs(found.context, client.context)
        self.assertEqual(client.context.verify_mode, ssl.CERT_REQUIRED)

    def test_reload_with_registered_server(self) -> None:
        """A reload keeps the context, and so the sessions, of a server registered with TLS."""
        balancer = self.plain_balancer()
        pool = balancer.service.default_pool
        server = pool.server_set.add(HTTPS, ServerSource.REGISTERED)
        found = pool.find_tls(server)
        self.reload(balancer, balancer.service.settings)
        self.assertIs(pool.find_tls(server), found)

    def test_failed_build(self) -> None:
        """If no CA certificates can be read, servers are rejected, and nothing is raised."""
        balancer = self.plain_balancer()
        pool = balancer.service.default_pool

        def fail(settings: PoolTlsSettings, http2: bool) -> None:
            raise ConfigError("no memory")

        self.patch(pool_tls, "build_client_context", fail)
        with capturedLogs() as events:
            server = pool.server_set.add(HTTPS, ServerSource.REGISTERED)
        self.assertEqual([formatEvent(event) for event in events], ["pool app: tls: no memory"])
        found = pool.find_tls(server)
        assert found is not None
        self.assertEqual(found.context.verify_mode, ssl.CERT_REQUIRED)
        self.assertEqual(found.context.get_ca_certs(), [])

    def test_unused_files(self) -> None:
        """Files of `[pool.tls]` are checked even if no server uses them yet."""
        tls = PoolTlsSettings(ca="/missing", all_servers=False)
        error = self.assertRaises(ConfigError, PoolTls.read, PoolSettings(tls=tls))
        self.assertIn("pool app: tls: /missing: cannot be read", str(error))

    def test_problems_of_both_sides(self) -> None:
        """A start reports the files of frontends and pools in one run."""
        settings = self.settings(PoolTlsSettings(ca="/missing-ca"))
        (frontend,) = settings.frontends
        tls = FrontendTlsSettings((CertificateSource("/missing-cert"),))
        settings = evolve(settings, frontends=(evolve(frontend, tls=tls),))
        error = self.assertRaises(ConfigError, MemoryBalancer.from_settings, settings)
        self.assertEqual(len(error.problems), 2, error.problems)
