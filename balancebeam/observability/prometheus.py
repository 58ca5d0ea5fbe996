"""
The exposition formats of Prometheus: text, version 0.0.4, and OpenMetrics, version 1.0.0.

https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from attrs import define, field

from balancebeam.observability.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# The last label of each bucket. OpenMetrics demands the decimal point: le="1.0".
_BUCKET_LABELS = (*(f'le="{bound!r}"}} ' for bound in BOUNDS), 'le="+Inf"} ')

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family(Protocol):
    """A metric and its samples."""

    @property
    def name(self) -> str:
        """The name; of a counter with _total."""

    @property
    def kind(self) -> str:
        """The type: "counter", "gauge" or "histogram"."""

    @property
    def help(self) -> str:
        """The help text."""

    def lines(self) -> Iterator[str]:
        """The sample lines, which are the same in both formats."""


@define
class MetricFamily:
    """
    A counter or gauge. Samples with equal label values are added up.

    Attributes:
        name: The name.
        kind: "counter" or "gauge".
        help: The help text, a sentence.
        labels: The names of the labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    _samples: dict[tuple[str, ...], float] = field(factory=dict)

    def add(self, value: float, *labels: Any) -> None:
        """Add a sample with a value for each label."""
        assert len(labels) == len(self.labels), (self.name, labels)
        key = tuple(str(label) for label in labels)
        self._samples[key] = self._samples.get(key, 0) + value

    def lines(self) -> Iterator[str]:
        for values, value in self._samples.items():
            labels = _format_labels(zip(self.labels, values))
            yield f"{self.name}{labels} {_format_number(value)}\n"


@define
class HistogramFamily:
    """
    A histogram for each combination of label values.

    Attributes:
        name: The name.
        help: The help text, a sentence.
        labels: The names of the labels.
        kind: "histogram".
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: str = "histogram"
    _histograms: dict[tuple[str, ...], Histogram] = field(factory=dict)

    def add(self, histogram: Histogram, *labels: Any) -> None:
        """Add a histogram with a value for each label."""
        assert len(labels) == len(self.labels), (self.name, labels)
        self._histograms[tuple(str(label) for label in labels)] = histogram

    def lines(self) -> Iterator[str]:
        for values, histogram in self._histograms.items():
            labels = _format_labels(zip(self.labels, values))
            # Pools of 200 servers have 400 histograms: nothing is formatted for each bucket.
            prefix = f"{self.name}_bucket{labels[:-1]}," if labels else f"{self.name}_bucket{{"
            total = 0
            for bucket, total in zip(_BUCKET_LABELS, histogram.cumulative()):
                yield f"{prefix}{bucket}{total}\n"
            yield f"{self.name}_sum{labels} {_format_number(histogram.sum)}\n"
            yield f"{self.name}_count{labels} {total}\n"


class MetricsRegistry:
    """All metric families, in the order in which they were created."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def counter(self, name: str, text: str, *labels: str) -> MetricFamily:
        """Return the counter called `name`, which ends with _total; create it if necessary."""
        return self._number(MetricFamily(name, "counter", text, labels))

    def gauge(self, name: str, text: str, *labels: str) -> MetricFamily:
        """Return the gauge called `name`; create it if necessary."""
        return self._number(MetricFamily(name, "gauge", text, labels))

    def histogram(self, name: str, text: str, *labels: str) -> HistogramFamily:
        """Return the histogram called `name`; create it if necessary."""
        family = self._families.setdefault(name, HistogramFamily(name, text, labels))
        assert isinstance(family, HistogramFamily), name
        return family

    def _number(self, new: MetricFamily) -> MetricFamily:
        family = self._families.setdefault(new.name, new)
        assert isinstance(family, MetricFamily), new.name
        return family

    def openmetrics(self) -> str:
        """All metrics in the OpenMetrics format, where the family of a counter has no _total."""
        return "".join(self._text(lambda family: family.name.removesuffix("_total"))) + "# EOF\n"

    def __str__(self) -> str:
        return "".join(self._text(lambda family: family.name))

    def _text(self, family_name: Any) -> Iterator[str]:
        for family in self._families.values():
            name = family_name(family)
            yield f"# HELP {name} {family.help.translate(_HELP_ESCAPES)}\n"
            yield f"# TYPE {name} {family.kind}\n"
            yield from family.lines()


def accepts_openmetrics(accept: str) -> bool:
    """Whether a value of Accept, as Prometheus sends it, names OpenMetrics, with a weight > 0."""
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        if media_type == "application/openmetrics-text":
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            return not any(weight.strip("0.") == "" for weight in weights)
    return False


def _format_labels(pairs: Any) -> str:
    content = ",".join(f'{name}="{_escape_label(value)}"' for name, value in pairs)
    return f"{{{content}}}" if content else ""


def _escape_label(value: str) -> str:
    # The path of a Unix socket may contain bytes that are not UTF-8.
    return value.encode("utf-8", "backslashreplace").decode("utf-8").translate(_LABEL_ESCAPES)


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
