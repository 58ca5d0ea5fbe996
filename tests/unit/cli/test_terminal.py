"""Escaping, widths, wrapping and tables."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.terminal import Column, escape, table, width, wrap


class TerminalTests(SynchronousTestCase):
    """Text for terminals."""

    def test_wide_and_combining_characters(self) -> None:
        """Columns are aligned by cells, not by characters."""
        rows = [["池", "a"], ["e\u0301te", "b"], ["plain", "c"]]
        output = table((Column("X"), Column("Y")), rows)
        self.assertEqual(output, "X      Y\n池     a\ne\u0301te    b\nplain  c\n")
        self.assertEqual({width(line[:-1]) for line in output.splitlines()}, {7})

    def test_wrapping(self) -> None:
        """Lines end at a space where there is one, else at the maximum width."""
        for text, max_width, lines in (
            ("", 5, [""]),
            ("abc", 3, ["abc"]),
            ("abcdef", 3, ["abc", "def"]),
            ("ab cd ef", 5, ["ab cd", "ef"]),
            ("ab cdefgh", 5, ["ab", "cdefg", "h"]),
            ("abcde fg", 5, ["abcde", "fg"]),
            ("池池池", 3, ["池", "池", "池"]),
            ("池", 1, ["池"]),
        ):
            self.assertEqual(wrap(text, max_width), lines, text)

    def test_escaping(self) -> None:
        """Unprintable characters are escaped unless they are allowed."""
        evil = "a\x1b[2J\r\n\t\x9b\x7f\u202e\udcff\U000e0001"
        safe = "a\\u001b[2J\\u000d\\u000a\\u0009\\u009b\\u007f\\u202e\\udcff\\U000e0001"
        self.assertEqual(escape(evil), safe)
        self.assertEqual(escape("a\nb\tc\r", allow="\n\t"), "a\nb\tc\\u000d")
