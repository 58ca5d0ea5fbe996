"""The metrics of a whole balancer."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from balancebeam.core.settings import LimitSettings
from balancebeam.observability.metrics import metrics_text
from tests.helpers.memory import GET, OK, MemoryBalancer
from tests.helpers.metrics import Samples, parse_metrics, sample_key


def scrape(balancer: MemoryBalancer) -> Samples:
    """The metrics of `balancer`."""
    service: Any = balancer.service
    for name in ("reloads", "reloads_failed", "reloaded_at"):
        if not hasattr(service, name):
            setattr(service, name, 0)
    return parse_metrics(metrics_text(service))


class MetricsTests(SynchronousTestCase):
    """The metrics of a balancer in memory."""

    def test_rejected_requests(self) -> None:
        """Malformed requests are counted by status, and not as requests of a pool."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        for _ in range(2):
            balancer.client().send(b"GET  / HTTP/1.1\r\n\r\n")
        samples = scrape(balancer)
        rejected = sample_key("balancebeam_rejected_requests_total", frontend="web", code="400")
        self.assertEqual(samples[rejected], 2)
        self.assertEqual(samples[sample_key("balancebeam_requests_total", pool="app")], 0)

    def test_requests(self) -> None:
        """Requests, responses, connections and the state of servers are reported."""
        balancer = MemoryBalancer(servers=2)
        self.addCleanup(balancer.stop)
        client, other_client = balancer.client(), balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        other_client.send(GET)
        samples = scrape(balancer)
        server = {"pool": "app", "server": "10.0.0.1:80"}
        for name, labels, value in (
            ("requests_total", {"pool": "app"}, 2),
            ("responses_total", {"pool": "app", "code": "200"}, 1),
            ("retries_total", {"pool": "app"}, 0),
            ("queued_requests", {"pool": "app"}, 0),
            ("server_connections", {"pool": "app"}, 1),
            ("server_pending_connections", {"pool": "app"}, 1),
            ("frontend_connections", {"frontend": "web"}, 2),
            ("server_up", server, 1),
            ("server_available", server, 1),
            ("server_weight", server, 1),
            ("server_requests_total", server, 1),
            ("server_idle_connections", server, 1),
            ("server_in_flight", server, 0),
            ("server_in_flight", {"pool": "app", "server": "10.0.0.2:80"}, 1),
            ("server_state", {**server, "state": "up"}, 1),
            ("server_state", {**server, "state": "down"}, 0),
            ("draining", {}, 0),
            ("draining_services", {}, 0),
            ("reloads_total", {}, 0),
        ):
            self.assertEqual(samples[sample_key(f"balancebeam_{name}", **labels)], value, name)
        self.assertNotIn(sample_key("balancebeam_server_health_check_passed", **server), samples)

    def test_failures_and_health_checks(self) -> None:
        """Failures, retries, health checks and aborted requests are reported."""
        balancer = MemoryBalancer(servers=2)
        self.addCleanup(balancer.stop)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        client.reset()
        balancer.clock.advance(1)
        server = balancer.servers[0]
        balancer.service.default_pool.health.check_finished(server, False, "timeout")
        samples = scrape(balancer)
        labels = {"pool": "app", "server": server.name}
        for name, sample_labels, value in (
            ("server_up", labels, 0),
            ("server_failures_total", labels, 1),
            ("server_health_check_passed", labels, 0),
            ("server_health_check_timestamp_seconds", labels, 1),
            ("responses_total", {"pool": "app", "code": "none"}, 1),
            ("retries_total", {"pool": "app"}, 1),
        ):
            self.assertEqual(
                samples[sample_key(f"balancebeam_{name}", **sample_labels)], value, name
            )

    def test_server_removed_and_added_again(self) -> None:
        """A removed server counts as draining, apart from a new one at its address."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        balancer.client().send(GET)
        server_set = balancer.service.server_set
        server = server_set.servers[0]
        server_set.remove(server)
        server_set.add(balancer.service.settings.pools[0].servers[0])
        samples = scrape(balancer)
        labels = {"pool": "app", "server": server.name}
        self.assertEqual(samples[sample_key("balancebeam_server_in_flight", **labels)], 0)
        self.assertEqual(samples[sample_key("balancebeam_draining_servers", pool="app")], 1)
        self.assertEqual(samples[sample_key("balancebeam_draining_requests", pool="app")], 1)

    def test_limits(self) -> None:
        """Rejections are counted by limit; limits of equal names are added up."""
        limits = (
            LimitSettings(1),
            # Has the same name as the first.
            LimitSettings(1, algorithm="concurrent"),
            LimitSettings(1, name="trial", dry_run=True),
        )
        balancer = MemoryBalancer(limits=limits)
        self.addCleanup(balancer.stop)
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.send(GET)
        client.send(GET)
        samples = scrape(balancer)
        scope = "frontend web"
        self.assertEqual(
            samples[sample_key("balancebeam_limit_rejected_total", scope=scope, limit="client")], 2
        )
        self.assertEqual(
            samples[
                sample_key("balancebeam_limit_dry_run_rejected_total", scope=scope, limit="trial")
            ],
            2,
        )
        self.assertEqual(
            samples[sample_key("balancebeam_responses_total", pool="app", code="429")], 2
        )

    def test_tcp(self) -> None:
        """TCP connections count as requests; ones that got a server have no status."""
        balancer = MemoryBalancer(mode="tcp")
        self.addCleanup(balancer.stop)
        balancer.client()
        client, server = balancer.client(), balancer.accept()
        client.reset()
        server.finish_closing()
        samples = scrape(balancer)
        self.assertEqual(samples[sample_key("balancebeam_requests_total", pool="app")], 2)
        self.assertEqual(samples[sample_key("balancebeam_frontend_connections", frontend="web")], 1)
        self.assertNotIn(
            sample_key("balancebeam_responses_total", pool="app", code="none"), samples
        )

    def test_draining(self) -> None:
        """`balancebeam_draining` is 1 during a graceful shutdown."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        self.assertEqual(scrape(balancer)[sample_key("balancebeam_draining")], 0)
        self.successResultOf(balancer.service.drain())
        self.assertEqual(scrape(balancer)[sample_key("balancebeam_draining")], 1)

    def test_naming(self) -> None:
        """Counters end with _total, and nothing else does."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        scrape(balancer)
        service: Any = balancer.service
        text = metrics_text(service)
        self.assertTrue(text.endswith("\n"))
        for line in text.splitlines():
            if line.startswith("# TYPE"):
                _, _, name, kind = line.split()
                self.assertEqual(kind == "counter", name.endswith("_total"), line)


class LatencyTests(SynchronousTestCase):
    """Histograms, bytes, ejections and retries."""

    def setUp(self) -> None:
        self.balancer = MemoryBalancer(2)
        self.balancer.measure_with_clock()
        self.addCleanup(self.balancer.stop)

    def sum_and_count(self, samples: Samples, name: str, **labels: str) -> tuple[float, float]:
        """The sum and the number of samples of a histogram."""
        return (
            samples[sample_key(f"balancebeam_{name}_seconds_sum", **labels)],
            samples[sample_key(f"balancebeam_{name}_seconds_count", **labels)],
        )

    def test_phases_of_requests(self) -> None:
        """Every request is counted once, before and after sweeps, in the phases that it had."""
        client = self.balancer.client()
        client.send(GET)
        self.balancer.clock.advance(0.25)
        server = self.balancer.accept()
        self.balancer.clock.advance(2)
        server.send(OK)
        for _ in range(2):
            samples = scrape(self.balancer)
            self.assertEqual(self.sum_and_count(samples, "request", pool="app"), (2.25, 1))
            self.balancer.advance(2)
        self.assertEqual(self.sum_and_count(samples, "queue", pool="app"), (0, 0))
        first, second = ({"pool": "app", "server": f"10.0.0.{number}:80"} for number in (1, 2))
        self.assertEqual(self.sum_and_count(samples, "server_connect", **first), (0.25, 1))
        self.assertEqual(self.sum_and_count(samples, "server_first_byte", **first), (2.0, 1))
        self.assertEqual(self.sum_and_count(samples, "server_first_byte", **second), (0, 0))
        bucket = "balancebeam_server_first_byte_seconds_bucket"
        self.assertEqual(samples[sample_key(bucket, le="1.0", **first)], 0)
        self.assertEqual(samples[sample_key(bucket, le="2.5", **first)], 1)

    def test_streamed_response(self) -> None:
        """The first byte of a response whose body goes on is counted before its end."""
        self.balancer.client().send(GET)
        self.balancer.accept().send(OK[:-1])
        samples = scrape(self.balancer)
        labels = {"pool": "app", "server": "10.0.0.1:80"}
        self.assertEqual(self.sum_and_count(samples, "server_first_byte", **labels)[1], 1)
        self.assertEqual(self.sum_and_count(samples, "request", pool="app")[1], 0)

    def test_queue(self) -> None:
        """The time in the queue is counted for queued requests only."""
        for server in self.balancer.servers:
            server.max_in_flight = 1
        for _ in range(3):
            self.balancer.client().send(GET)
        self.balancer.clock.advance(0.5)
        self.balancer.accept().send(OK)
        samples = scrape(self.balancer)
        self.assertEqual(self.sum_and_count(samples, "queue", pool="app"), (0.5, 1))

    def test_server_that_leaves(self) -> None:
        """The histograms of a server disappear together with it, with a request in flight too."""
        self.balancer.client().send(GET)
        peer = self.balancer.accept()
        server_set = self.balancer.service.server_set
        server_set.remove(server_set.servers[0])
        peer.send(OK)
        names = {dict(labels).get("server") for _, labels in scrape(self.balancer)}
        self.assertEqual(names, {None, "10.0.0.2:80"})
        self.assertEqual(len(self.balancer.service.pools["app"].latency.servers), 1)

    def test_ejections_and_retries(self) -> None:
        """An ejection and the retry after it have the failure as reason."""
        self.balancer.client().send(GET)
        self.balancer.connectors[-1].refuse()
        self.balancer.accept().send(OK)
        samples = scrape(self.balancer)
        labels = {"pool": "app", "reason": "unreachable"}
        self.assertEqual(samples[sample_key("balancebeam_retries_by_reason_total", **labels)], 1)
        labels["server"] = "10.0.0.1:80"
        self.assertEqual(samples[sample_key("balancebeam_server_ejections_total", **labels)], 1)

    def test_bytes_of_open_and_closed_connections(self) -> None:
        """Bytes are counted once, while the connection is open and after its end."""
        received = sample_key("balancebeam_received_bytes_total", frontend="web")
        sent = sample_key("balancebeam_sent_bytes_total", frontend="web")
        client = self.balancer.client()
        client.send(GET[:5], GET[5:])
        self.balancer.accept().send(OK)
        size = len(client.received())
        for _ in range(2):
            samples = scrape(self.balancer)
            self.assertEqual((samples[received], samples[sent]), (len(GET), size))
            client.half_close()
            client.finish_closing()

    def test_openmetrics(self) -> None:
        """The metrics of a balancer are valid OpenMetrics, with the same samples."""
        self.balancer.client().send(GET)
        self.balancer.connectors[-1].refuse()
        text = metrics_text(self.balancer.service, openmetrics=True)
        families = {family.name: family for family in text_string_to_metric_families(text)}
        self.assertEqual(families["balancebeam_requests"].samples[0].value, 1)
        self.assertEqual(families["balancebeam_request_seconds"].type, "histogram")

    def test_promtool(self) -> None:
        """`promtool check metrics` has no complaint."""
        promtool = shutil.which("promtool")
        if promtool is None:
            raise SkipTest("promtool is not installed")
        self.balancer.client().send(GET)
        self.balancer.connectors[-1].refuse()
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=metrics_text(self.balancer.service),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
