"""The hosts file: one server per line."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.hosts_file import load_hosts
from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.settings import ServerSettings


class HostsFileTests(SynchronousTestCase):
    """Servers and mistakes of a hosts file."""

    def path(self) -> str:
        """Return a path in a new directory, where no file exists."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return os.path.join(directory.name, "hosts")

    def write(self, content: bytes) -> str:
        """Write a hosts file; return its path."""
        path = self.path()
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_servers_blank_lines_and_comments(self) -> None:
        """Each line is a server; blank lines and comments are ignored."""
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

    def test_byte_order_mark(self) -> None:
        """A byte order mark at the beginning is skipped."""
        path = self.write(b"\xef\xbb\xbf127.0.0.1:8001\r\n")
        self.assertEqual(load_hosts(path), ([ServerSettings(TcpAddress("127.0.0.1", 8001))], []))

    def test_every_mistake_has_its_line(self) -> None:
        """All mistakes are reported, each with file and line."""
        path = self.write(b"127.0.0.1:8001\nnonsense\n\ntls://a\n127.0.0.1:0\n127.0.0.1:8001\n")
        servers, problems = load_hosts(path)
        self.assertEqual(servers, [ServerSettings(TcpAddress("127.0.0.1", 8001))])
        self.assertEqual(
            [problem.split(": ")[0] for problem in problems],
            [f"{path}:{number}" for number in (2, 4, 5, 6)],
        )
        self.assertIn("'nonsense'", problems[0])
        self.assertIn("expected tls://host:port", problems[1])
        self.assertIn("duplicate address 127.0.0.1:8001", problems[3])

    def test_tls(self) -> None:
        """Servers with `https://` use TLS; the same address without TLS is a duplicate."""
        path = self.write(b"https://a\ntls://b:1\n")
        expected = [
            ServerSettings(TcpAddress("a", 443), tls=True),
            ServerSettings(TcpAddress("b", 1), tls=True),
        ]
        self.assertEqual(load_hosts(path), (expected, []))
        servers, problems = load_hosts(self.write(b"https://a\na:443\n"))
        self.assertEqual(servers, expected[:1])
        self.assertIn("duplicate address a:443", problems[0])

    def test_no_servers(self) -> None:
        """A file without servers is a mistake."""
        for content in (b"", b"\n", b"# nothing\n"):
            path = self.write(content)
            servers, problems = load_hosts(path)
            self.assertEqual((servers, len(problems)), ([], 1), msg=repr(content))
            self.assertIn("no servers: expected", problems[0])

    def test_missing_file(self) -> None:
        """A file that cannot be read is a mistake with the reason of the operating system."""
        path = self.path()
        servers, problems = load_hosts(path)
        self.assertEqual(servers, [])
        self.assertEqual(problems, [f"{path}: cannot be read: no such file or directory"])

    def test_not_utf8(self) -> None:
        """A file that is not UTF-8 is a mistake."""
        path = self.write(b"\xff\xfe\n")
        self.assertEqual(load_hosts(path), ([], [f"{path}: cannot be read: it is not UTF-8"]))
