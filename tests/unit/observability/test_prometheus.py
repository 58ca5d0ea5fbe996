"""The text exposition format of Prometheus."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.histogram import Histogram
from balancebeam.observability.prometheus import MetricsRegistry, accepts_openmetrics
from tests.helpers.metrics import parse_metrics


class TextFormatTests(SynchronousTestCase):
    """Escaping, and samples with equal labels."""

    @given(st.lists(st.text(), min_size=2, max_size=2), st.floats(-1e9, 1e9), st.text())
    def test_round_trip(self, labels: list[str], value: float, text: str) -> None:
        """The Prometheus client parses what was written, whatever the labels and the help text."""
        registry = MetricsRegistry()
        registry.gauge("some_name", " ".join(text.split()), "one", "other").add(value, *labels)
        ((name, parsed_labels), parsed_value) = next(iter(parse_metrics(str(registry)).items()))
        self.assertEqual(name, "some_name")
        self.assertEqual(parsed_value, value)
        self.assertEqual(parsed_labels, frozenset(zip(("one", "other"), labels)))

    def test_label_that_is_not_utf8(self) -> None:
        """Surrogates in a label, of a path that is not UTF-8, are escaped."""
        registry = MetricsRegistry()
        registry.gauge("some_name", "Text.", "path").add(1, "unix:/\udcff")
        self.assertIn(b"\\\\udcff", str(registry).encode())

    def test_equal_samples_are_added_up(self) -> None:
        """Samples with equal labels become one, and special characters are escaped."""
        registry = MetricsRegistry()
        for _ in range(2):
            registry.counter("a_total", "Text\nin two lines.", "b").add(2, 'c"\\\n')
        self.assertEqual(
            str(registry),
            "# HELP a_total Text\\nin two lines.\n# TYPE a_total counter\n"
            'a_total{b="c\\"\\\\\\n"} 4\n',
        )

    def test_histogram(self) -> None:
        """A histogram has cumulative buckets up to +Inf, a sum and a count."""
        histogram = Histogram()
        histogram.fold([0.0005, 2.0, 100.0])
        registry = MetricsRegistry()
        registry.histogram("a_seconds", "Text.", "b").add(histogram, 'c"')
        samples = parse_metrics(str(registry))
        label = ("b", 'c"')
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "0.0005")))], 1)
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "1.0")))], 1)
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "2.5")))], 2)
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "+Inf")))], 3)
        self.assertEqual(samples["a_seconds_sum", frozenset((label,))], 102.0005)
        self.assertEqual(samples["a_seconds_count", frozenset((label,))], 3)


class OpenMetricsTests(SynchronousTestCase):
    """The OpenMetrics format, and when it is used."""

    def test_families(self) -> None:
        """The family of a counter has no _total, and # EOF ends the text."""
        registry = MetricsRegistry()
        registry.counter("a_total", "Text.", "b").add(2, "c")
        registry.gauge("d", "Text.").add(0.5)
        registry.histogram("e_seconds", "Text.").add(Histogram())
        text = registry.openmetrics()
        self.assertTrue(text.startswith('# HELP a Text.\n# TYPE a counter\na_total{b="c"} 2\n'))
        self.assertTrue(text.endswith("\n# EOF\n"))
        families = {family.name: family.type for family in text_string_to_metric_families(text)}
        self.assertEqual(families, {"a": "counter", "d": "gauge", "e_seconds": "histogram"})

    def test_accept(self) -> None:
        """OpenMetrics is used where Accept names it with a weight above 0."""
        prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1"
        self.assertTrue(accepts_openmetrics(prometheus))
        self.assertTrue(accepts_openmetrics("text/plain, Application/OpenMetrics-Text"))
        for value in ("", "*/*", "text/plain", "application/openmetrics-text;q=0.0", ";,;"):
            self.assertFalse(accepts_openmetrics(value), value)
