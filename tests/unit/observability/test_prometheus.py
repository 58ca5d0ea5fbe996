"""The text exposition format of Prometheus."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.prometheus import MetricsRegistry
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
