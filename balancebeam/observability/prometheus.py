"""The text exposition format of Prometheus, version 0.0.4."""

from __future__ import annotations

from typing import Any

from attrs import define, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


@define
class MetricFamily:
    """
    A metric and its samples. Samples with equal label values are added up.

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

    def __str__(self) -> str:
        lines = [
            f"# HELP {self.name} {self.help.translate(_HELP_ESCAPES)}\n",
            f"# TYPE {self.name} {self.kind}\n",
        ]
        lines += [
            f"{self.name}{self._format_labels(values)} {_format_number(value)}\n"
            for values, value in self._samples.items()
        ]
        return "".join(lines)

    def _format_labels(self, values: tuple[str, ...]) -> str:
        pairs = zip(self.labels, values)
        content = ",".join(f'{name}="{_escape_label(value)}"' for name, value in pairs)
        return f"{{{content}}}" if content else ""


class MetricsRegistry:
    """All metric families, in the order in which they were created."""

    def __init__(self) -> None:
        self._families: dict[str, MetricFamily] = {}

    def counter(self, name: str, text: str, *labels: str) -> MetricFamily:
        """Return the counter called `name`, which ends with _total; create it if necessary."""
        return self._families.setdefault(name, MetricFamily(name, "counter", text, labels))

    def gauge(self, name: str, text: str, *labels: str) -> MetricFamily:
        """Return the gauge called `name`; create it if necessary."""
        return self._families.setdefault(name, MetricFamily(name, "gauge", text, labels))

    def __str__(self) -> str:
        return "".join(str(family) for family in self._families.values())


def _escape_label(value: str) -> str:
    # The path of a Unix socket may contain bytes that are not UTF-8.
    return value.encode("utf-8", "backslashreplace").decode("utf-8").translate(_LABEL_ESCAPES)


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
