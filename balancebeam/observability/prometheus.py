"""The text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from typing import Any

from attrs import define, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


@define
class MetricFamily:
    """
    One metric and its samples: `kind` is "counter" or "gauge", `labels` are
    names, and each sample has as many values for them. Of equal samples the
    sum is shown.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    _samples: dict[tuple[str, ...], float] = field(factory=dict)

    def add(self, value: float, *labels: Any) -> None:
        """Another sample."""
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
        inside = ",".join(f'{name}="{_escape_label(value)}"' for name, value in pairs)
        return f"{{{inside}}}" if inside else ""


class MetricsRegistry:
    """All families, in the order in which they were asked for first."""

    def __init__(self) -> None:
        self._families: dict[str, MetricFamily] = {}

    def counter(self, name: str, text: str, *labels: str) -> MetricFamily:
        """What only grows; its name ends with _total."""
        return self._families.setdefault(name, MetricFamily(name, "counter", text, labels))

    def gauge(self, name: str, text: str, *labels: str) -> MetricFamily:
        """What goes up and down."""
        return self._families.setdefault(name, MetricFamily(name, "gauge", text, labels))

    def __str__(self) -> str:
        return "".join(str(family) for family in self._families.values())


def _escape_label(value: str) -> str:
    # A path may hold octets that are no UTF-8.
    return value.encode("utf-8", "backslashreplace").decode("utf-8").translate(_LABEL_ESCAPES)


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
