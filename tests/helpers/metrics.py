"""Metrics in the text format of Prometheus, parsed by the Prometheus client."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

# Values by name and labels.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_metrics(text: str) -> Samples:
    """Parse `text`; every sample and every family may occur only once."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), names
    return samples


def sample_key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """The key of a sample in `Samples`."""
    return name, frozenset(labels.items())
