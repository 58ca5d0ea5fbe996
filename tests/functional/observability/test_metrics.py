"""What Prometheus is told."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.settings import LimitSettings
from balancebeam.observability.metrics import metrics_text
from balancebeam.observability.process_metrics import add_process_metrics
from balancebeam.observability.prometheus import MetricsRegistry
from tests.helpers.memory import GET, OK, MemoryBalancer

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """All samples, each of which may be there only once."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), names
    return found


def measured(balancer: MemoryBalancer) -> Samples:
    service: Any = balancer.service
    for name in ("reloads", "reloads_failed", "reloaded_at"):
        if not hasattr(service, name):
            setattr(service, name, 0)
    return parsed(metrics_text(service))


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


class MetricsTests(SynchronousTestCase):
    """A whole balancer, measured."""

    def test_what_could_not_be_read(self) -> None:
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        for _ in range(2):
            balancer.client().send(b"GET  / HTTP/1.1\r\n\r\n")
        found = measured(balancer)
        refused = key("balancebeam_rejected_requests_total", frontend="web", code="400")
        self.assertEqual(found[refused], 2)
        self.assertEqual(found[key("balancebeam_requests_total", pool="app")], 0)

    def test_requests(self) -> None:
        balancer = MemoryBalancer(servers=2)
        self.addCleanup(balancer.stop)
        client, other = balancer.client(), balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        other.send(GET)
        found = measured(balancer)
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
            self.assertEqual(found[key(f"balancebeam_{name}", **labels)], value, name)
        self.assertNotIn(key("balancebeam_server_health_check_passed", **server), found)

    def test_failures_and_checks(self) -> None:
        balancer = MemoryBalancer(servers=2)
        self.addCleanup(balancer.stop)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        client.reset()
        balancer.clock.advance(1)
        server = balancer.servers[0]
        balancer.service.default_pool.health.check_finished(server, False, "it was asleep")
        found = measured(balancer)
        labels = {"pool": "app", "server": server.name}
        for name, more, value in (
            ("server_up", labels, 0),
            ("server_failures_total", labels, 1),
            ("server_health_check_passed", labels, 0),
            ("server_health_check_timestamp_seconds", labels, 1),
            ("responses_total", {"pool": "app", "code": "none"}, 1),
            ("retries_total", {"pool": "app"}, 1),
        ):
            self.assertEqual(found[key(f"balancebeam_{name}", **more)], value, name)

    def test_removed_and_registered_again(self) -> None:
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        balancer.client().send(GET)
        server_set = balancer.service.server_set
        server = server_set.servers[0]
        server_set.remove(server)
        server_set.add(balancer.service.settings.pools[0].servers[0])
        found = measured(balancer)
        labels = {"pool": "app", "server": server.name}
        self.assertEqual(found[key("balancebeam_server_in_flight", **labels)], 0)
        self.assertEqual(found[key("balancebeam_draining_servers", pool="app")], 1)
        self.assertEqual(found[key("balancebeam_draining_requests", pool="app")], 1)

    def test_limits(self) -> None:
        limits = (
            LimitSettings(1),
            # Of the same name.
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
        found = measured(balancer)
        scope = "frontend web"
        self.assertEqual(
            found[key("balancebeam_limit_rejected_total", scope=scope, limit="client")], 2
        )
        self.assertEqual(
            found[key("balancebeam_limit_dry_run_rejected_total", scope=scope, limit="trial")], 2
        )
        self.assertEqual(found[key("balancebeam_responses_total", pool="app", code="429")], 2)

    def test_tcp(self) -> None:
        balancer = MemoryBalancer(mode="tcp")
        self.addCleanup(balancer.stop)
        balancer.client()
        client, server = balancer.client(), balancer.accept()
        client.reset()
        server.finish_closing()
        found = measured(balancer)
        self.assertEqual(found[key("balancebeam_requests_total", pool="app")], 2)
        self.assertEqual(found[key("balancebeam_frontend_connections", frontend="web")], 1)
        self.assertNotIn(key("balancebeam_responses_total", pool="app", code="none"), found)

    def test_draining(self) -> None:
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        self.assertEqual(measured(balancer)[key("balancebeam_draining")], 0)
        self.successResultOf(balancer.service.drain())
        self.assertEqual(measured(balancer)[key("balancebeam_draining")], 1)

    def test_form(self) -> None:
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        measured(balancer)
        service: Any = balancer.service
        text = metrics_text(service)
        self.assertTrue(text.endswith("\n"))
        for line in text.splitlines():
            if line.startswith("# TYPE"):
                _, _, name, kind = line.split()
                self.assertEqual(kind == "counter", name.endswith("_total"), line)


class TextFormatTests(SynchronousTestCase):
    """The text format."""

    @given(st.lists(st.text(), min_size=2, max_size=2), st.floats(-1e9, 1e9), st.text())
    def test_what_is_written_is_read(self, labels: list[str], value: float, text: str) -> None:
        registry = MetricsRegistry()
        registry.gauge("some_name", " ".join(text.split()), "one", "other").add(value, *labels)
        ((name, found), read) = next(iter(parsed(str(registry)).items()))
        self.assertEqual(name, "some_name")
        self.assertEqual(read, value)
        self.assertEqual(found, frozenset(zip(("one", "other"), labels)))

    def test_octets_that_are_no_text(self) -> None:
        registry = MetricsRegistry()
        registry.gauge("some_name", "Text.", "path").add(1, "unix:/\udcff")
        self.assertIn(b"\\\\udcff", str(registry).encode())

    def test_equal_samples_are_one(self) -> None:
        registry = MetricsRegistry()
        for _ in range(2):
            registry.counter("a_total", "Text\nin two lines.", "b").add(2, 'c"\\\n')
        self.assertEqual(
            str(registry),
            "# HELP a_total Text\\nin two lines.\n# TYPE a_total counter\n"
            'a_total{b="c\\"\\\\\\n"} 4\n',
        )


class ProcessMetricsTests(SynchronousTestCase):
    """What is known of the process."""

    def test_linux(self) -> None:
        registry = MetricsRegistry()
        add_process_metrics(registry)
        found = parsed(str(registry))
        self.assertGreater(found[key("process_cpu_seconds_total")], 0)
        if not os.path.exists("/proc/self/statm"):
            return
        self.assertGreater(found[key("process_resident_memory_bytes")], 10e6)
        self.assertGreater(found[key("process_virtual_memory_bytes")], 10e6)
        self.assertGreater(found[key("process_open_fds")], 2)
        began = found[key("process_start_time_seconds")]
        self.assertTrue(time.time() - 86400 < began <= time.time() + 2, began)

    def test_without_proc(self) -> None:
        registry = MetricsRegistry()
        with tempfile.TemporaryDirectory() as folder:
            add_process_metrics(registry, Path(folder))
        self.assertIn(key("process_cpu_seconds_total"), parsed(str(registry)))
        self.assertNotIn("process_open_fds", str(registry))
