"""The text exposition format of Prometheus."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.histogram import Histogram
from balancebeam.observability.prometheus import (
    HistogramFamily,
    LazyFamily,
    MetricsRegistry,
    accepts_openmetrics,
    format_labels,
)
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
        labels = format_labels(("b",), ('c"',))
        registry.add(HistogramFamily("a_seconds", "Text.", [(labels, histogram)]))
        samples = parse_metrics(str(registry))
        label = ("b", 'c"')
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "0.0005")))], 1)
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "1.0")))], 1)
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "2.5")))], 2)
        self.assertEqual(samples["a_seconds_bucket", frozenset((label, ("le", "+Inf")))], 3)
        self.assertEqual(samples["a_seconds_sum", frozenset((label,))], 102.0005)
        self.assertEqual(samples["a_seconds_count", frozenset((label,))], 3)

    def test_histogram_that_changes_between_two_pieces(self) -> None:
        """Each histogram is read in one piece: its count equals its last bucket."""
        histograms = [Histogram() for _ in range(3)]
        pairs = [(format_labels(("b",), (str(n),)), item) for n, item in enumerate(histograms)]
        registry = MetricsRegistry()
        registry.add(HistogramFamily("a_seconds", "Text.", pairs))
        texts = []
        for text in registry.texts():
            texts.append(text)
            for histogram in histograms:
                histogram.fold([0.5])
        samples = parse_metrics("".join(texts))
        for number in range(3):
            label = ("b", str(number))
            count = samples["a_seconds_count", frozenset((label,))]
            self.assertEqual(count, number + 1)
            bucket = frozenset((label, ("le", "+Inf")))
            self.assertEqual(samples["a_seconds_bucket", bucket], count)
            self.assertEqual(samples["a_seconds_sum", frozenset((label,))], count / 2)

    def test_optional_family(self) -> None:
        """A family without samples has no head if it is optional, and one otherwise."""
        registry = MetricsRegistry()
        registry.add(LazyFamily("a", "gauge", "Text.", [], optional=True))
        self.assertEqual(str(registry), "")
        registry.add(LazyFamily("b", "gauge", "Text.", []))
        self.assertEqual(str(registry), "# HELP b Text.\n# TYPE b gauge\n")
        registry.add(LazyFamily("c", "gauge", "Text.", [("", 1), ("", True)], optional=True))
        self.assertTrue(str(registry).endswith("# HELP c Text.\n# TYPE c gauge\nc 1\nc 1\n"))


class OpenMetricsTests(SynchronousTestCase):
    """The OpenMetrics format, and when it is used."""

    def test_families(self) -> None:
        """The family of a counter has no _total, and # EOF ends the text."""
        registry = MetricsRegistry()
        registry.counter("a_total", "Text.", "b").add(2, "c")
        registry.gauge("d", "Text.").add(0.5)
        registry.add(HistogramFamily("e_seconds", "Text.", [("", Histogram())]))
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
