"""`GET /requests` on a balancer in memory."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.api import single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ForwardingSettings, ServerSettings
from balancebeam.observability.recent_requests import RecentRequests
from tests.helpers.admin import MemoryAdmin
from tests.helpers.files import temporary_log_path
from tests.helpers.memory import GET, OK

KEYS = {"id", "time", "client", "method", "host", "target", "frontend", "route", "pool"}
KEYS |= {"tries", "phases", "status", "bytes", "ended"}


class RequestsTests(SynchronousTestCase):
    """Requests of a balancer with two servers and the admin API."""

    def start(self, **frontend: Any) -> MemoryAdmin:
        """A balancer whose frontend has these settings."""
        servers = tuple(ServerSettings(TcpAddress(f"10.0.0.{n}", 80)) for n in (1, 2))
        defaults = single_pool_settings(servers, bind=())
        settings = evolve(defaults, frontends=(evolve(defaults.frontends[0], **frontend),))
        # A balancer in memory cannot bind the admin listener of its settings.
        self.patch(RecentRequests, "enable", lambda store, _: setattr(store, "enabled", True))
        self.admin = MemoryAdmin(settings)
        self.addCleanup(self.admin.stop)
        return self.admin

    def requests(self, query: str = "") -> Any:
        """The requests that a query returns."""
        return self.admin.request("GET", f"/requests{query}").data

    def test_retried_request(self) -> None:
        """A request that was retried has both tries, its phases, and how it ended."""
        balancer = self.start().balancer
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        balancer.accept(1).send(OK)
        (row,) = self.requests()
        self.assertEqual(set(row), KEYS)
        self.assertEqual((row["status"], row["ended"], row["bytes"]), (200, "complete", 5))
        self.assertEqual((row["frontend"], row["pool"], row["client"]), ("web", "app", "192.0.2.1"))
        results = [(item["server"], item["result"][:20]) for item in row["tries"]]
        self.assertEqual(results, [("10.0.0.1:80", "could not be reached"), ("10.0.0.2:80", "200")])
        self.assertIsNone(row["phases"]["queue"])
        self.assertGreater(row["phases"]["connect"], 0)
        self.assertEqual(self.requests("?failed=1"), [])
        self.assertEqual(self.requests("?slow=1"), [row])

    def test_failed_request(self) -> None:
        """A request that failed at all servers is among the failed ones."""
        balancer = self.start().balancer
        balancer.client().send(GET)
        balancer.connectors[0].refuse()
        balancer.connectors[1].refuse()
        (row,) = self.requests("?failed=1")
        self.assertEqual((row["status"], row["ended"], len(row["tries"])), (502, "server", 2))

    def test_id_of_the_access_log(self) -> None:
        """The access log and the admin API show the same id, made for the log or sent."""
        for mode in ("off", "make", "keep"):
            path = temporary_log_path(self)
            forwarding = ForwardingSettings(request_id=mode)
            log = {"access_log": str(path), "access_log_format": "json"}
            balancer = self.start(forwarding=forwarding, **log).balancer
            client = balancer.client()
            client.send(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: client's\r\n\r\n"))
            balancer.accept().send(OK)
            balancer.advance(2)
            logged = json.loads(path.read_text())["id"]
            (row,) = self.requests(f"?id={logged}")
            self.assertEqual(row["id"], logged)
            self.assertEqual(logged == "client's", mode == "keep")

    def test_tcp_connection(self) -> None:
        """A TCP connection has neither method nor status."""
        balancer = self.start(mode="tcp").balancer
        balancer.client()
        balancer.accept().reset()
        (row,) = self.requests()
        self.assertEqual((row["method"], row["target"], row["status"]), (None, None, None))
        self.assertEqual(row["ended"], "server")

    def test_invalid_queries(self) -> None:
        """An unknown or invalid parameter is an error that names it."""
        self.start()
        for query in ("failed=yes", "slow=2", "limit=0", "limit=-1", "limit=9999", "limit=x"):
            response = self.admin.request("GET", f"/requests?{query}")
            self.assertEqual(response.status, 400, query)
            self.assertIn(query.partition("=")[0], response.error)
        self.assertEqual(self.admin.request("GET", "/requests?other=1").status, 400)
