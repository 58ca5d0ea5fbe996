"""Histograms with fixed buckets."""

from __future__ import annotations

from math import inf, isclose

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.histogram import BOUNDS, Histogram

SAMPLES = st.lists(st.one_of(st.floats(0.0, 100.0), st.sampled_from(BOUNDS)), max_size=50)


class HistogramTests(SynchronousTestCase):
    """Folding against a slow reference."""

    @given(st.lists(SAMPLES, max_size=5))
    def test_counts_every_sample_once(self, batches: list[list[float]]) -> None:
        """Whatever the batches, each bucket counts the samples up to its bound, inclusive."""
        histogram = Histogram()
        samples = [sample for batch in batches for sample in batch]
        for batch in batches:
            histogram.fold(batch)
        expected = [sum(sample <= bound for sample in samples) for bound in (*BOUNDS, inf)]
        self.assertEqual(list(histogram.cumulative()), expected)
        self.assertEqual(histogram.count, len(samples))
        self.assertTrue(isclose(histogram.sum, sum(samples), abs_tol=1e-9))

    def test_fold_empties_the_list(self) -> None:
        """Folded samples leave the list, so that nothing is counted twice."""
        histogram, samples = Histogram(), [0.1, 70.0]
        histogram.fold(samples)
        histogram.fold(samples)
        self.assertEqual((samples, histogram.count), ([], 2))

    def test_buckets_of_the_contract(self) -> None:
        """The bounds are 0.5 ms to 60 s."""
        text = "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60"
        self.assertEqual(BOUNDS, tuple(map(float, text.split())))
