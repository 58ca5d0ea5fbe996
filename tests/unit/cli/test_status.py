"""Table of the servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.status import format_age, status_table
from balancebeam.cli.terminal import Terminal, escape, width
from tests.unit.cli.scripted_listener import server_info


class StatusTableTests(SynchronousTestCase):
    """Rows, columns and colors of the table."""

    def test_columns_are_aligned(self) -> None:
        """Text is aligned to the left, numbers to the right."""
        servers = [
            server_info(in_flight=3, requests=123456789),
            server_info(
                pool="images", address="[2001:db8::1]:8080", state="down", reason="refused"
            ),
        ]
        lines = status_table(servers, 0, Terminal()).splitlines()
        for line, left, right in zip(
            lines,
            (
                "POOL    SERVER            ",
                "app     10.0.0.1:80       ",
                "images  [2001:db8::1]:8080",
            ),
            (
                "STATE  WEIGHT  IN FLIGHT   REQUESTS  FAILURES  SINCE  REASON",
                "up          1          3  123456789         0  -",
                "down        1          0         12         0  -      refused",
            ),
        ):
            self.assertEqual(line, f"{left}  {right}")

    def test_no_servers(self) -> None:
        """Without servers there is a sentence instead of a table."""
        self.assertEqual(status_table([], 0, Terminal()), "there are no servers\n")

    def test_missing_and_unknown_keys(self) -> None:
        """Missing keys are shown as a dash, and unknown keys are ignored."""
        text = status_table([{"address": "a:1", "later": 1}], 0, Terminal())
        self.assertIn("-     a:1", text)

    def test_reason_below_its_row_in_a_narrow_terminal(self) -> None:
        """The reason is a line of its own only if the table is wider than the terminal."""
        reason = "the last 3 checks failed: connection was refused by the other side"
        lines = status_table(
            [server_info(state="down", reason=reason), server_info(address="10.0.0.2:80")],
            0,
            Terminal(80),
        ).splitlines()
        self.assertEqual(len(lines), 4)
        self.assertNotIn("REASON", lines[0])
        self.assertEqual(lines[2], f"    {reason}")
        self.assertTrue(lines[3].startswith("app   10.0.0.2:80"))
        wide = status_table([server_info(state="down", reason=reason)], 0, Terminal(160))
        self.assertEqual(len(wide.splitlines()), 2)

    def test_long_texts_are_wrapped(self) -> None:
        """Wrapped addresses and reasons are complete, and no line is wider than the terminal."""
        path = "unix:/" + "abcdefghi/" * 10
        reason = "x" * 200
        servers = [server_info(address=path, reason=reason)]
        lines = status_table(servers, 0, Terminal(80)).splitlines()
        self.assertLessEqual(max(map(width, lines)), 80)
        self.assertIn(path, "".join(line[6:].split(" ")[0] for line in lines[1:-3]))
        self.assertIn(reason, "".join(line.strip() for line in lines))

    def test_minimum_width(self) -> None:
        """In a very narrow terminal, columns keep their minimum width."""
        path = "unix:/" + "abcdefghi/" * 10
        narrow = status_table([server_info(address=path, reason="x" * 200)], 0, Terminal(1))
        self.assertIn("x" * 16, narrow)

    def test_colors(self) -> None:
        """Known states are colored if the terminal has colors; the text is the same."""
        servers = [server_info(), server_info(state="down"), server_info(state="sideways")]
        colored = status_table(servers, 0, Terminal(colors=True))
        self.assertIn("\x1b[32mup\x1b[0m  ", colored)
        self.assertIn("\x1b[31mdown\x1b[0m  ", colored)
        plain = status_table(servers, 0, Terminal())
        self.assertNotIn("\x1b", plain)
        stripped = colored.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "")
        self.assertEqual(stripped, plain)

    def test_cells_are_escaped(self) -> None:
        """Control characters in any column are escaped."""
        evil = "a\x1b[2J\r\n\t\x9b\x7f\u202e\udcff\U000e0001"
        fields = dict.fromkeys(("pool", "address", "state", "reason", "weight", "since"), evil)
        output = status_table([fields], 0, Terminal())
        self.assertEqual(output.count(escape(evil)), 6)
        self.assertEqual(len(output.splitlines()), 2)

    def test_backup_servers_are_marked(self) -> None:
        """The table marks backup servers behind their addresses."""
        lines = status_table([server_info(backup=True), server_info()], 0, Terminal()).splitlines()
        self.assertIn(" 10.0.0.1:80 (backup)  up ", lines[1])
        self.assertNotIn("backup", lines[2])


class FormatAgeTests(SynchronousTestCase):
    """Times since a timestamp."""

    def test_ages(self) -> None:
        """Ages are rounded down to the largest unit; other values are shown as they are."""
        for since, text in (
            ("1970-01-01T00:16:40.000Z", "now"),
            ("1970-01-01T00:16:39.000Z", "1s ago"),
            ("1970-01-01T00:15:41.001Z", "58s ago"),
            ("1970-01-01T00:15:40.000Z", "1m ago"),
            ("1969-12-31T23:16:40.000Z", "1h ago"),
            ("1969-12-25T23:16:40.000Z", "6d ago"),
            ("1970-01-01T01:00:00.000Z", "now"),
            ("0001-01-01T00:00:00.000Z", "719162d ago"),
            ("yesterday", "yesterday"),
            (None, "-"),
            (5, "-"),
        ):
            self.assertEqual(format_age(since, 1000), text)
