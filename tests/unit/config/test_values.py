"""Numbers on the command line, and the file of hosts."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.hosts_file import load_hosts
from balancebeam.config.numbers import parse_count, parse_seconds
from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.settings import ServerSettings


class SecondsTests(SynchronousTestCase):
    """Lengths of time."""

    def test_what_is_read(self) -> None:
        for text, seconds in (("10", 10.0), ("0.5", 0.5), (".25", 0.25)):
            self.assertEqual(parse_seconds(text), seconds, msg=text)

    def test_zero_only_where_it_means_something(self) -> None:
        self.assertEqual(parse_seconds("0", allow_zero=True), 0.0)
        error = self.assertRaises(ValueError, parse_seconds, "0")
        self.assertIn("more than 0", str(error))
        error = self.assertRaises(ValueError, parse_seconds, "x", allow_zero=True)
        self.assertIn("0 or more", str(error))

    def test_a_year_is_the_most(self) -> None:
        self.assertEqual(parse_seconds("31622400"), 31622400.0)
        self.assertRaises(ValueError, parse_seconds, "31622401")

    def test_what_is_refused(self) -> None:
        for text in ("", "x", "-1", "nan", "inf", "-inf", "1e400", "10s", "1,5", "0x10"):
            error = self.assertRaises(ValueError, parse_seconds, text)
            self.assertIn(repr(text), str(error))


class CountTests(SynchronousTestCase):
    """Whole numbers within bounds."""

    def test_what_is_read(self) -> None:
        for text, number in (("1", 1), ("10", 10), ("007", 7)):
            self.assertEqual(parse_count(text, 1, 10), number, msg=text)

    def test_what_is_refused(self) -> None:
        cases = ["", "0", "11", "-1", "+1", " 1", "1 ", "1.0", "1_0", "0x1", "x", "\u0663", "\xb2"]
        for text in [*cases, "9" * 5000]:
            error = self.assertRaises(ValueError, parse_count, text, 1, 10)
            self.assertIn("from 1 to 10", str(error))


class HostsFileTests(SynchronousTestCase):
    """One server a line; mistakes are told by line."""

    def path(self) -> str:
        """Where no file is yet."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return os.path.join(directory.name, "hosts")

    def write(self, content: bytes) -> str:
        path = self.path()
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_servers_blank_lines_and_comments(self) -> None:
        path = self.write(
            b"# all of them\n"
            b"127.0.0.1:8001\n"
            b"\n"
            b"   \t \n"
            b"  [::1]:8002   # the second\r\n"
            b"example.org:80\n"
            b"unix:/run/app.sock"
        )
        self.assertEqual(
            load_hosts(path),
            (
                [
                    ServerSettings(TcpAddress("127.0.0.1", 8001)),
                    ServerSettings(TcpAddress("::1", 8002)),
                    ServerSettings(TcpAddress("example.org", 80)),
                    ServerSettings(UnixAddress("/run/app.sock")),
                ],
                [],
            ),
        )

    def test_every_mistake_is_told_with_its_line(self) -> None:
        path = self.write(b"127.0.0.1:8001\nnonsense\n\nhttps://a\n127.0.0.1:0\n")
        servers, problems = load_hosts(path)
        self.assertEqual(servers, [ServerSettings(TcpAddress("127.0.0.1", 8001))])
        self.assertEqual(
            [problem.split(": ")[0] for problem in problems],
            [f"{path}:{number}" for number in (2, 4, 5)],
        )
        self.assertIn("'nonsense'", problems[0])
        self.assertIn("TLS", problems[1])

    def test_a_file_that_names_no_server(self) -> None:
        for content in (b"", b"\n", b"# nothing\n"):
            path = self.write(content)
            servers, problems = load_hosts(path)
            self.assertEqual((servers, len(problems)), ([], 1), msg=repr(content))
            self.assertIn("names no server", problems[0])

    def test_a_file_that_cannot_be_read(self) -> None:
        path = self.path()
        servers, problems = load_hosts(path)
        self.assertEqual(servers, [])
        self.assertEqual(problems, [f"{path}: cannot be read: No such file or directory"])

    def test_a_file_that_is_not_text(self) -> None:
        path = self.write(b"\xff\xfe\n")
        self.assertEqual(load_hosts(path), ([], [f"{path}: cannot be read: it is not UTF-8"]))


class NumberRegressionTests(SynchronousTestCase):
    """Numbers that were accepted by mistake."""

    def test_only_ascii_digits(self) -> None:
        """float() accepts underscores, spaces and digits of other scripts."""
        for text in ("1_0", " 10 ", "\uff11\uff10"):
            self.assertRaises(ValueError, parse_seconds, text)
