"""Differences between two settings."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.diff import diff_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AcmeSettings,
    AdminSettings,
    FrontendSettings,
    FrontendTlsSettings,
    PoolSettings,
    PoolTlsSettings,
    SecretSource,
    ServerSettings,
    Settings,
)


def server(name: str, weight: int = 1) -> ServerSettings:
    """Return a server on port 80 of a host."""
    return ServerSettings(TcpAddress(name, 80), weight)


class DiffTests(SynchronousTestCase):
    """One line for each change."""

    def setUp(self) -> None:
        pool = PoolSettings(servers=(server("a"), server("b")))
        self.settings = Settings((FrontendSettings(),), (pool,), AdminSettings())

    def diff(self, pool: PoolSettings) -> list[str]:
        """Return the changes if the pool is replaced."""
        return diff_settings(self.settings, evolve(self.settings, pools=(pool,)))

    def test_no_change(self) -> None:
        """Equal settings have no differences, wherever in a file they are from."""
        moved = evolve(self.settings, source_locations={"a:80": "f:1"})
        self.assertEqual(diff_settings(self.settings, moved), [])

    def test_frontends_and_pools(self) -> None:
        """Frontends and pools are compared by name, attribute by attribute."""
        new = evolve(
            self.settings,
            frontends=(FrontendSettings(max_body=1), FrontendSettings("new")),
            pools=(PoolSettings("other"),),
        )
        self.assertEqual(
            diff_settings(self.settings, new),
            [
                "frontend web: max_body changed",
                "frontend new added",
                "pool other added",
                "pool app removed",
            ],
        )

    def test_servers(self) -> None:
        """Servers are compared by address, and their order counts."""
        (pool,) = self.settings.pools
        self.assertEqual(
            self.diff(evolve(pool, servers=(server("b", 2), server("c")))),
            [
                "pool app: server b:80: weight changed",
                "pool app: server c:80 added",
                "pool app: server a:80 removed",
            ],
        )
        self.assertEqual(
            self.diff(evolve(pool, servers=(server("b"), server("a")))),
            ["pool app: the order of servers changed"],
        )

    def test_tls(self) -> None:
        """TLS of a frontend, a pool, a server and the ACME account are changes of their own."""
        (frontend,), (pool,) = self.settings.frontends, self.settings.pools
        secure = evolve(server("b"), tls=True)
        self.assertEqual(
            diff_settings(
                self.settings,
                evolve(
                    self.settings,
                    frontends=(evolve(frontend, tls=FrontendTlsSettings(self_signed=True)),),
                    pools=(evolve(pool, servers=(server("a"), secure), tls=PoolTlsSettings()),),
                    acme=AcmeSettings("/x"),
                ),
            ),
            [
                "frontend web: tls changed",
                "pool app: server b:80: tls changed",
                "pool app: tls changed",
                "acme changed",
            ],
        )
        with_scheme = evolve(server("a"), source_scheme="http")
        self.assertEqual(self.diff(evolve(pool, servers=(with_scheme, server("b")))), [])

    def test_secrets_are_not_shown(self) -> None:
        """A change of the token has no value."""
        new = evolve(self.settings, admin=AdminSettings(token=SecretSource("s3cret")))
        self.assertEqual(diff_settings(self.settings, new), ["admin changed"])
