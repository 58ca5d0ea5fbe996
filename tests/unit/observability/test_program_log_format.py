"""The JSON format of the program's own log."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.program_log_format import format_json_event

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def reject_constant(name: str) -> None:
    """Fail: infinity and NaN are not JSON."""
    raise AssertionError(name)


class Unprintable:
    """An object whose conversion to text fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class JsonFormatTests(SynchronousTestCase):
    """One object per line, with the keys of the event."""

    def format(self, **event: Any) -> dict[str, Any]:
        """The object of an event's line."""
        line = format_json_event(event)
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.isascii())
        fields: dict[str, Any] = json.loads(line, parse_constant=reject_constant)
        return fields

    def test_event(self) -> None:
        """A line has time, level, namespace, message and the event's own keys."""
        fields = self.format(
            log_time=1_000_000_000.25,
            log_level=LogLevel.warn,
            log_namespace="balancebeam.x",
            log_format="server {server} ejected for {seconds} s",
            log_source=self,
            server="10.0.0.1:80",
            seconds=1.5,
        )
        expected = {
            "time": "2001-09-09T01:46:40.250Z",
            "level": "warn",
            "namespace": "balancebeam.x",
            "message": "server 10.0.0.1:80 ejected for 1.5 s",
            "server": "10.0.0.1:80",
            "seconds": 1.5,
        }
        self.assertEqual(fields, expected)

    @given(st.dictionaries(st.text().filter(lambda key: not key.startswith("log_")), VALUES))
    def test_any_values(self, keys: dict[str, Any]) -> None:
        """Any keys and values make one line of valid JSON with the common keys."""
        fields = self.format(**{**keys, "log_format": "x", "log_level": LogLevel.info})
        self.assertEqual((fields["level"], fields["message"]), ("info", "x"))
        self.assertIn("time", fields)

    def test_name_of_a_common_key(self) -> None:
        """An own key that has the name of a common one gets an underscore."""
        fields = self.format(log_format="x", message="own", level=3)
        self.assertEqual((fields["message"], fields["message_"], fields["level_"]), ("x", "own", 3))

    def test_failure(self) -> None:
        """A failure is a traceback, also if its exception has no text."""
        for error in (ValueError("reason"), ValueError(Unprintable())):
            fields = self.format(log_format="failed", log_failure=Failure(error))
            self.assertIn("ValueError", fields["traceback"])

    def test_objects(self) -> None:
        """Objects become text, even if they have none; nesting ends at a depth."""
        nested: list[Any] = []
        nested.append(nested)
        fields = self.format(log_format="x", address=Unprintable(), nested=nested, level_of=1j)
        self.assertIn("Unprintable", fields["address"])
        self.assertIn("nested", fields)
        self.assertEqual(fields["level_of"], "1j")

    def test_legacy_events(self) -> None:
        """An event of twisted.python.log has its text once."""
        fields = self.format(
            log_format="{log_text}", log_text="old", message=("old",), isError=0, system="-", time=1
        )
        self.assertEqual(fields["message"], "old")
        self.assertNotIn("message_", fields)
        self.assertNotIn("time_", fields)
