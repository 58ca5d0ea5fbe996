"""`docs/metrics.rst` has every metric with its type and labels."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.settings import LimitSettings
from balancebeam.observability.metrics import metrics_text
from tests.helpers.documentation import table_rows
from tests.helpers.memory import GET, OK, MemoryBalancer


def exposed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels, by name, of all that a balancer with something of everything exposes."""
    limits = (LimitSettings(1), LimitSettings(1, name="trial", dry_run=True))
    balancer = MemoryBalancer(2, limits=limits)
    try:
        client = balancer.client()
        client.send(GET)
        # Ejected, and then a retry.
        balancer.connectors[-1].refuse()
        balancer.accept().send(OK)
        client.send(GET)
        balancer.client().send(b"GET  / HTTP/1.1\r\n\r\n")
        service: Any = balancer.service
        service.getServiceNamed("health").check_finished(balancer.servers[0], True, "passed")
        service.access_logs.files["access.log"] = _LogFile()
        service.certificates.expiry_times = lambda: {("web", "www.example.org"): 1.0}
        tls = service.default_frontend.tls_factory
        tls.completed["TLSv1.3", True] += 1
        tls.count_failure("192.0.2.1", "timeout", "header timeout expired")
        text = metrics_text(service)
        del service.access_logs.files["access.log"]
    finally:
        balancer.stop()
    found = {}
    for family in text_string_to_metric_families(text):
        suffix = "_total" if family.type == "counter" else ""
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        found[f"{family.name}{suffix}"] = (family.type, tuple(sorted(labels)))
    # A counter without samples has no labels to compare; see to it that there are none.
    assert all(family.samples for family in text_string_to_metric_families(text)), text
    return found


class _LogFile:
    """As much of a log file as metrics need."""

    dropped_lines = 3

    def close(self) -> None:
        """There is nothing to close."""


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels, by name, of all that the page has."""
    rows = table_rows("metrics.rst", "Metrics of the balancer")
    rows += table_rows("metrics.rst", "Metrics of the process")
    return {
        name.strip("`"): (kind, tuple(sorted(filter(None, labels.replace("`", "").split(", ")))))
        for name, kind, labels, _ in rows
    }


class MetricsPage(SynchronousTestCase):
    """The page and the exposition agree."""

    maxDiff = None

    def test_every_metric_is_documented(self) -> None:
        """The page has the metrics that are exposed, with type and labels, and no others."""
        expected, page = exposed(), documented()
        # Missing where there is no /proc, or no limit of descriptors.
        optional = {name for name in page if name.startswith("process_")}
        for name in optional - set(expected):
            del page[name]
        self.assertEqual(page, expected)
