"""Parsers of single values, of options and of configuration files."""

from __future__ import annotations

import sys
from typing import Any, Callable

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config import values
from balancebeam.config.values import (
    MAX_SECONDS,
    display,
    parse_check_path,
    parse_count,
    parse_seconds,
    parse_weight,
)
from tests.helpers.config import ConfigFileTestCase


class ParseSecondsTests(SynchronousTestCase):
    """Durations in options."""

    def test_decimal_numbers(self) -> None:
        """Whole and decimal numbers of seconds are accepted."""
        for text, seconds in (("10", 10.0), ("0.5", 0.5), (".25", 0.25)):
            self.assertEqual(parse_seconds(text), seconds, msg=text)

    def test_zero(self) -> None:
        """0 is rejected unless it is allowed, and the message names the minimum."""
        self.assertEqual(parse_seconds("0", allow_zero=True), 0.0)
        error = self.assertRaises(ValueError, parse_seconds, "0")
        self.assertIn("more than 0", str(error))
        error = self.assertRaises(ValueError, parse_seconds, "x", allow_zero=True)
        self.assertIn("0 or more", str(error))

    def test_maximum(self) -> None:
        """A year is accepted, and a longer duration is rejected."""
        self.assertEqual(parse_seconds("31622400"), 31622400.0)
        self.assertRaises(ValueError, parse_seconds, "31622401")

    def test_invalid(self) -> None:
        """Signs, units, exponents, infinity and NaN are rejected; the message has the text."""
        for text in ("", "x", "-1", "nan", "inf", "-inf", "1e400", "10s", "1,5", "0x10"):
            error = self.assertRaises(ValueError, parse_seconds, text)
            self.assertIn(f"invalid duration {text!r}: expected seconds", str(error))


class ParseCountTests(SynchronousTestCase):
    """Whole numbers in options."""

    def test_whole_numbers(self) -> None:
        """Numbers between minimum and maximum are accepted, with leading zeros too."""
        for text, number in (("1", 1), ("10", 10), ("007", 7)):
            self.assertEqual(parse_count(text, 1, 10), number, msg=text)

    def test_invalid(self) -> None:
        """Other numbers and other forms are rejected; the message has minimum and maximum."""
        cases = ["", "0", "11", "-1", "+1", " 1", "1 ", "1.0", "1_0", "0x1", "x", "\u0663", "\xb2"]
        for text in [*cases, "9" * 5000]:
            error = self.assertRaises(ValueError, parse_count, text, 1, 10)
            self.assertIn("from 1 to 10", str(error))

    def test_weight(self) -> None:
        """Weights are whole numbers from 0 to 256."""
        self.assertEqual((parse_weight("0"), parse_weight("256")), (0, 256))
        error = self.assertRaises(ValueError, parse_weight, "257")
        self.assertEqual(str(error), "invalid weight '257': expected a whole number from 0 to 256")


class ParseCheckPathTests(SynchronousTestCase):
    """Paths of health checks."""

    def test_paths(self) -> None:
        """A path with an optional query is returned unchanged."""
        for text in ("/", "/health", "/a%20b?x=1&y=%22'"):
            self.assertEqual(parse_check_path(text), text)

    def test_invalid(self) -> None:
        """Relative paths, fragments, whitespace and malformed escapes are rejected."""
        for text in ("", "health", "/a b", "/a#b", "/%zz", "/\n", "http://a/"):
            error = self.assertRaises(ValueError, parse_check_path, text)
            self.assertIn("such as /health", str(error))


class FileValueTests(SynchronousTestCase):
    """Values of a configuration file, of any type that TOML has."""

    def test_valid(self) -> None:
        """Each parser returns the value in its final type."""
        cases: list[tuple[Callable[[Any], Any], Any, Any]] = [
            (values.string, "", ""),
            (values.file_path, "a", "a"),
            (values.boolean, False, False),
            (values.name, "a-b.c_1", "a-b.c_1"),
            (values.integer(1), 10**9, 10**9),
            (values.weight, 0, 0),
            (values.weight, 256, 256),
            (values.seconds, 1, 1.0),
            (values.seconds, MAX_SECONDS, MAX_SECONDS),
            (values.seconds_or_zero, 0, 0.0),
            (values.fraction, 1, 1.0),
            (values.one_of(("a", "b")), "b", "b"),
            (values.list_of(values.string), "a", ("a",)),
            (values.list_of(values.string), ["a", "b"], ("a", "b")),
            (values.parsed(parse_weight), "3", 3),
        ]
        for parse, value, expected in cases:
            self.assertEqual(parse(value), expected)
            self.assertIs(type(parse(value)), type(expected))

    def test_invalid(self) -> None:
        """Values of another type or out of bounds are rejected; the message has the value."""
        cases: list[tuple[Callable[[Any], Any], Any]] = [
            (values.string, 1),
            (values.file_path, ""),
            (values.file_path, "a\0"),
            (values.boolean, 1),
            (values.name, ""),
            (values.name, "-a"),
            (values.integer(1), 0),
            (values.integer(1), True),
            (values.integer(1), 1.0),
            (values.weight, 257),
            (values.weight, "1"),
            (values.seconds, 0),
            (values.seconds, True),
            (values.seconds, MAX_SECONDS + 1),
            (values.seconds_or_zero, -1),
            (values.seconds_or_zero, float("nan")),
            (values.fraction, 1.01),
            (values.fraction, False),
            (values.one_of(("a", "b")), "c"),
            (values.one_of(("a", "b")), ["a"]),
            (values.list_of(values.string), ["a", 2]),
            (values.parsed(parse_weight), 3),
        ]
        for parse, value in cases:
            error = self.assertRaises(ValueError, parse, value)
            self.assertRegex(str(error), "^invalid [a-z ]+ .+: expected .+")

    def test_display(self) -> None:
        """Values are shown as TOML writes them, and long values are truncated."""
        nested: list[Any] = []
        for _ in range(10**5):
            nested = [nested]
        for value, text in (
            ("a\n", r"'a\n'"),
            (True, "true"),
            (1.5, "1.5"),
            ("a" * 100, "'" + "a" * 56 + "..."),
            (nested, "(too long)"),
        ):
            self.assertEqual(display(value), text)

    def test_display_of_integers_with_too_many_digits(self) -> None:
        """An integer that Python refuses to convert to text does not fail the message."""
        text = display(10**5000)
        # Python limits the digits since 3.11, and in security releases of earlier versions.
        self.assertIn(text, ("(too long)", "1" + "0" * 56 + "..."))
        if sys.version_info >= (3, 11):
            self.assertEqual(text, "(too long)")


class SizeAndStatusTests(ConfigFileTestCase):
    """Sizes and ranges of statuses in a file."""

    def test_sizes(self) -> None:
        """Sizes are bytes, or strings with a decimal or a binary unit in either case."""
        for text, size in (
            ("1", 1),
            ('"1"', 1),
            ('"10B"', 10),
            ('"10k"', 10_000),
            ('"10 KB"', 10_000),
            ('"10KiB"', 10_240),
            ('"1mib"', 1 << 20),
            ('"2G"', 2 * 10**9),
            ('"1TiB"', 1 << 40),
        ):
            frontend = self.load(f"[frontend]\nmax_body = {text}\n").frontends[0]
            self.assertEqual(frontend.max_body, size, text)

    def test_statuses(self) -> None:
        """A range of statuses is a string, and one status is a string or a number."""
        for text, expected in (
            ('"200-299"', (200, 299)),
            ('"204"', (204, 204)),
            ("204", (204, 204)),
            ('"100-599"', (100, 599)),
        ):
            checks = self.load(f"[pool.health]\nstatus = {text}\n").pools[0].active
            assert checks is not None
            self.assertEqual(checks.status, expected)

    def test_invalid(self) -> None:
        """Zero, huge and malformed sizes, and malformed or reversed ranges are rejected."""
        self.assert_each_mistake(
            (
                ("[frontend]\nmax_body = '1 GiBi'\n", 2, ["max_body", "'1 GiBi'", '"10MB"']),
                ("[frontend]\nmax_body = 0\n", 2, ["frontend.max_body", "invalid size 0"]),
                ("[frontend]\nmax_body = '0k'\n", 2, ["frontend.max_body", "invalid size '0k'"]),
                ("[frontend]\nmax_body = 1.5\n", 2, ["frontend.max_body", "invalid size 1.5"]),
                ("[frontend]\nmax_body = '99999999TiB'\n", 2, ["max_body", "invalid size"]),
                ("[pool.health]\nstatus = '299-200'\n", 2, ["status", "'299-200'", '"200-299"']),
                ("[pool.health]\nstatus = '2xx'\n", 2, ["pool.health.status", '"200-299"']),
                ("[pool.health]\nstatus = 600\n", 2, ["pool.health.status", '"200-299"']),
            )
        )


class NumberRegressionTests(SynchronousTestCase):
    """Numbers that were accepted by mistake."""

    def test_only_ascii_digits(self) -> None:
        """float() accepts underscores, spaces and digits of other scripts."""
        for text in ("1_0", " 10 ", "\uff11\uff10"):
            self.assertRaises(ValueError, parse_seconds, text)
