"""
The exposition formats of Prometheus: text, version 0.0.4, and OpenMetrics, version 1.0.0.

https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Protocol

from attrs import define, field

from balancebeam.observability.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Templates of histograms that are kept: for pools of some hundred servers, 2 KB each. A template
# saves three quarters of the time for a scrape's histograms.
MAX_TEMPLATES = 1024

# Texts of labels that are kept likewise, 0.1 KB each: one for each server, and some for each pool.
MAX_LABEL_TEXTS = 4096

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family(Protocol):
    """
    A metric and its samples.

    Attributes:
        optional: Whether the family is omitted as long as it has no sample.
    """

    optional: bool

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
    optional: bool = field(default=False, init=False)
    _samples: dict[tuple[str, ...], float] = field(factory=dict)

    def add(self, value: float, *labels: Any) -> None:
        """Add a sample with a value for each label."""
        assert len(labels) == len(self.labels), (self.name, labels)
        key = tuple(str(label) for label in labels)
        self._samples[key] = self._samples.get(key, 0) + value

    def lines(self) -> Iterator[str]:
        for values, value in self._samples.items():
            labels = format_labels(self.labels, values)
            yield f"{self.name}{labels} {_format_number(value)}\n"


@define
class LazyFamily:
    """
    A metric whose samples are read while its text is made, one by one.

    Attributes:
        name: The name.
        kind: "counter", "gauge" or "histogram".
        help: The help text, a sentence.
        samples: The text of the labels, see `format_labels`, and the value.
        optional: Whether the family is omitted as long as it has no sample.
    """

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[str, float]]
    optional: bool = False

    def lines(self) -> Iterator[str]:
        name = self.name
        for labels, value in self.samples:
            yield f"{name}{labels} {_format_number(value)}\n"


@define
class HistogramFamily:
    """
    A histogram for each combination of label values; each is read in one piece.

    Attributes:
        name: The name.
        help: The help text, a sentence.
        histograms: The text of the labels, see `format_labels`, and the histogram.
        optional: Whether the family is omitted as long as it has no sample.
        kind: "histogram".
    """

    name: str
    help: str
    histograms: Iterable[tuple[str, Histogram]]
    optional: bool = False
    kind: str = "histogram"

    def lines(self) -> Iterator[str]:
        name = self.name
        for labels, histogram in self.histograms:
            counts = tuple(histogram.cumulative())
            total = _format_number(histogram.sum)
            yield _histogram_template(name, labels) % (*counts, total, counts[-1])


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

    def add(self, family: Family) -> None:
        """Add a family with a new name."""
        assert family.name not in self._families, family.name
        self._families[family.name] = family

    def _number(self, new: MetricFamily) -> MetricFamily:
        family = self._families.setdefault(new.name, new)
        assert isinstance(family, MetricFamily), new.name
        return family

    def texts(self, *, openmetrics: bool = False) -> Iterator[str]:
        """
        All metrics, in pieces: a sample, a histogram or the head of a family each.

        Args:
            openmetrics: Whether the format is OpenMetrics, where the family of a counter has no
                _total, and the last line is # EOF.
        """
        for family in self._families.values():
            name = family.name.removesuffix("_total") if openmetrics else family.name
            head = f"# HELP {name} {family.help.translate(_HELP_ESCAPES)}\n"
            head += f"# TYPE {name} {family.kind}\n"
            if not family.optional:
                yield head
                head = ""
            for line in family.lines():
                yield head + line
                head = ""
        if openmetrics:
            yield "# EOF\n"

    def openmetrics(self) -> str:
        """All metrics in the OpenMetrics format."""
        return "".join(self.texts(openmetrics=True))

    def __str__(self) -> str:
        return "".join(self.texts())


@lru_cache(maxsize=MAX_TEMPLATES)
def _histogram_template(name: str, labels: str) -> str:
    """The lines of one histogram, with %d for counts and %s for the sum."""
    name, labels = name.replace("%", "%%"), labels.replace("%", "%%")
    prefix = f"{name}_bucket{labels[:-1]}," if labels else f"{name}_bucket{{"
    # OpenMetrics demands the decimal point: le="1.0".
    bounds = (*map(repr, BOUNDS), "+Inf")
    lines = [f'{prefix}le="{bound}"}} %d\n' for bound in bounds]
    lines += (f"{name}_sum{labels} %s\n", f"{name}_count{labels} %d\n")
    return "".join(lines)


def accepts_openmetrics(accept: str) -> bool:
    """Whether a value of Accept, as Prometheus sends it, names OpenMetrics, with a weight > 0."""
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        if media_type == "application/openmetrics-text":
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            return not any(weight.strip("0.") == "" for weight in weights)
    return False


@lru_cache(maxsize=MAX_LABEL_TEXTS)
def format_labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Return the labels as a sample has them: in braces; empty without any."""
    content = ",".join(f'{name}="{_escape_label(value)}"' for name, value in zip(names, values))
    return f"{{{content}}}" if content else ""


def _escape_label(value: str) -> str:
    # The path of a Unix socket may contain bytes that are not UTF-8.
    return value.encode("utf-8", "backslashreplace").decode("utf-8").translate(_LABEL_ESCAPES)


def _format_number(value: float) -> str:
    if value.__class__ is int:
        return str(value)
    return str(int(value)) if value == int(value) else repr(value)
