"""Questions that settings answer about themselves."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.settings import FrontendSettings, PoolSettings, RouteSettings, Settings

REDIRECT = FrontendSettings("plain", bind=(), redirect_https=True)
WEB = FrontendSettings("web", bind=(), pool="web", routes=(RouteSettings("api", path="/v1"),))
DATABASE = FrontendSettings("db", bind=(), pool="db", mode="tcp")
POOLS = tuple(PoolSettings(name) for name in ("spare", "web", "api", "db"))


class SettingsTests(SynchronousTestCase):
    """Frontends with and without pools."""

    def test_pool_names(self) -> None:
        """A frontend has its own pool and the pools of its routes, or none if it redirects."""
        self.assertEqual(WEB.pool_names, ("web", "api"))
        self.assertEqual(REDIRECT.pool_names, ())

    def test_default_frontend_and_pool(self) -> None:
        """The default is the first frontend with a pool, and that pool."""
        for frontends, frontend, pool in (
            ((WEB, DATABASE), WEB, "web"),
            ((REDIRECT, DATABASE, WEB), DATABASE, "db"),
            ((REDIRECT,), REDIRECT, "spare"),
            ((), None, "spare"),
        ):
            settings = Settings(frontends, POOLS)
            self.assertEqual(settings.default_frontend, frontend)
            self.assertEqual(settings.default_pool, pool)
        self.assertIsNone(Settings((REDIRECT,), ()).default_pool)

    def test_pool_mode(self) -> None:
        """The mode of a pool is that of the frontends that use it."""
        settings = Settings((REDIRECT, DATABASE, WEB), POOLS)
        for pool, mode in (("db", "tcp"), ("web", "http"), ("api", "http"), ("spare", "http")):
            self.assertEqual(settings.pool_mode(pool), mode)
        renamed = FrontendSettings("plain", bind=(), pool="db", redirect_https=True)
        self.assertEqual(Settings((renamed, DATABASE), POOLS).pool_mode("db"), "tcp")
