"""Format of the program's own log as JSON: one object per line for every event."""

from __future__ import annotations

import json
import math
from typing import Any

from twisted.logger import LogEvent, formatEvent
from twisted.python.reflect import safe_str

from balancebeam.observability.timestamps import utc_time

# The keys of every line. A key of an event with the same name gets an underscore appended.
_COMMON_KEYS = ("time", "level", "namespace", "message", "traceback")

# Keys that Twisted sets for observers of `twisted.python.log`; they repeat the new ones.
_LEGACY_KEYS = frozenset(("time", "system", "isError", "message", "format", "failure", "why"))

# Nesting of lists and objects in a value that is kept; deeper values become text. It also
# ends the conversion of a value that contains itself.
_MAX_DEPTH = 4


def format_json_event(event: LogEvent) -> str:
    """
    Format an event of `twisted.logger` as one line of JSON.

    The keys are `time`, `level`, `namespace` and `message`, `traceback` if the event has a
    failure, and the event's own keys.

    Args:
        event: The event.

    Returns:
        An object in ASCII, ended by the only line feed in it.
    """
    level = event.get("log_level")
    fields: dict[str, Any] = {
        "time": utc_time(float(event.get("log_time") or 0.0)),
        "level": "info" if level is None else str(level.name),
        "namespace": _value(event.get("log_namespace"), _MAX_DEPTH),
        "message": formatEvent(event),
    }
    failure = event.get("log_failure")
    if failure is not None:
        fields["traceback"] = _traceback(failure)
    legacy = "log_legacy" in event or "isError" in event
    for key, value in event.items():
        name = str(key)
        if name.startswith("log_") or (legacy and name in _LEGACY_KEYS):
            continue
        fields[f"{name}_" if name in _COMMON_KEYS else name] = _value(value, _MAX_DEPTH)
    return json.dumps(fields) + "\n"


def _traceback(failure: Any) -> str:
    try:
        return str(failure.getTraceback())
    except Exception:
        # The text of an exception is computed by its class, which may fail itself.
        return safe_str(failure)


def _value(value: Any, depth: int) -> Any:
    """Return `value` as JSON can represent it; what it cannot represent as text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        # JSON has neither infinity nor NaN (RFC 8259, 6).
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if depth and isinstance(value, (list, tuple)):
        return [_value(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {str(key): _value(item, depth - 1) for key, item in value.items()}
    return safe_str(value)
