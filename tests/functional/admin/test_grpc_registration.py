"""Registration in a pool with gRPC health checks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.settings import (
    HTTP2,
    FrontendSettings,
    HealthCheckSettings,
    PoolSettings,
    Settings,
)
from tests.helpers.admin import MemoryAdmin

CHECKS = HealthCheckSettings(None, grpc="my.Service")


class RegistrationTests(SynchronousTestCase):
    """A server that registers itself has to pass the checks of its pool."""

    def test_grpc_check(self) -> None:
        """The check before a registration is the gRPC check, over HTTP/2."""
        pool = PoolSettings(name="app", protocol=HTTP2, active=CHECKS)
        frontend = FrontendSettings(name="web", bind=(), pool="app")
        admin = MemoryAdmin(Settings((frontend,), (pool,)))
        self.addCleanup(admin.stop)
        admin.start_request("POST", "/upstreams/app", {"address": "10.0.0.9:80"})
        server, checks, _ = admin.health_checks[-1]
        self.assertEqual((checks.grpc, checks.path), ("my.Service", None))
        self.assertEqual(server.protocol, HTTP2)
        admin.pass_check()
        self.assertEqual(len(admin.balancer.servers), 1)
