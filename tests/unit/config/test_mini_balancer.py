"""The configuration file of mini-balancer."""

from __future__ import annotations

from types import SimpleNamespace

from balancebeam.config.toml_file import load_file
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from tests.helpers.config import ConfigFileTestCase, option_problems, parse_options
from tests.helpers.memory import flatten_settings

VALID = """\
# The example of mini-balancer
[frontend]
bind_on = "127.0.0.1:8080"

[[frontend.backend]]
forward_to = "127.0.0.1:9001"

[[frontend.backend]]
forward_to = "app.example.org:9002"
"""


class MiniBalancerTests(ConfigFileTestCase):
    """Files of mini-balancer, valid and with mistakes."""

    def read(self, text: str | bytes) -> tuple[SimpleNamespace | None, list[str]]:
        """Return the flattened settings of a file, `None` without any, and its mistakes."""
        settings, problems = load_file(self.write(text))
        return flatten_settings(settings) if settings.frontends else None, problems

    def test_servers_and_address(self) -> None:
        """The file has one listener and any number of servers."""
        settings, problems = self.read(VALID)
        self.assertEqual(problems, [])
        assert settings is not None
        self.assertEqual(settings.bind, (TcpAddress("127.0.0.1", 8080),))
        self.assertEqual(
            settings.servers,
            (
                ServerSettings(TcpAddress("127.0.0.1", 9001)),
                ServerSettings(TcpAddress("app.example.org", 9002)),
            ),
        )

    def test_mistakes(self) -> None:
        """Each mistake is reported once, with its line, its key and what is expected."""
        for text, line, parts in (
            (VALID.replace("9001", "x"), 6, ["forward_to", "'127.0.0.1:x'", "host:port"]),
            (VALID.replace('"app.example.org:9002"', "9002"), 9, ["forward_to 9002", "host:port"]),
            (VALID.replace("127.0.0.1:8080", "8080"), 3, ["bind_on", "'8080'"]),
            (VALID.replace("bind_on", "bind"), None, ["missing bind_on"]),
            (VALID.replace("bind_on", "bind"), 3, ["frontend.bind: unknown key", "bind_on"]),
            (VALID.replace("frontend", "frontent"), 2, ["frontent: unknown key", "frontend?"]),
            (VALID + "weight = 3\n", 10, ["frontend.backend.weight: unknown key", "forward_to"]),
            ('[frontend]\nbind_on = "a:1"\n', 1, ["[[frontend.backend]]"]),
            ('[frontend]\nbind_on = "a:1"\nbackend = [1]\n', None, ["[[frontend.backend]]"]),
            (
                VALID.replace("app.example.org:9002", "127.0.0.1:9001"),
                9,
                ["forward_to", "duplicate address 127.0.0.1:9001"],
            ),
            ("frontend = 1\n", 1, ["[[frontend]]"]),
            ("[frontend]\nbind_on = x\n", 2, ["invalid TOML", "Invalid value"]),
            ("frontend = 'x\n", None, ["invalid TOML", "end of document"]),
        ):
            _, problems = self.read(text)
            location = self.path if line is None else f"{self.path}:{line}"
            matches = [
                problem
                for problem in problems
                if problem.startswith(location + ": ") and all(part in problem for part in parts)
            ]
            self.assertEqual(len(matches), 1, msg=f"{text}\n{problems}")

    def test_line_of_the_right_backend(self) -> None:
        """A mistake in a backend has a line of that backend, or none if it is inline."""
        text = (
            '[frontend]\nbind_on = "a:1"\n# x\n'
            '[[frontend.backend]]\n[[frontend.backend]]\nforward_to = "bad host"\n'
        )
        _, problems = self.read(text)
        self.assertEqual(len(problems), 2)
        self.assertIn(
            f'{self.path}:4: missing forward_to: expected forward_to = "host:port"', problems
        )
        self.assertTrue(
            problems[1].startswith(f"{self.path}:6: forward_to: invalid address 'bad host'"),
            problems,
        )
        _, (problem,) = self.read('frontend = {bind_on = "a:1", backend = [{forward_to = 1}]}\n')
        self.assertTrue(problem.startswith(f"{self.path}: invalid forward_to 1:"), problem)

    def test_all_mistakes_at_once(self) -> None:
        """One run reports all mistakes."""
        _, problems = self.read(VALID.replace("127.0.0.1", "300.0.0.1") + "x = 1\n")
        self.assertEqual(len(problems), 3)

    def test_unreadable_file(self) -> None:
        """A file that cannot be read or is not UTF-8 is a mistake."""
        _, (problem,) = self.read(b"\xff")
        self.assertEqual(problem, f"{self.path}: cannot be read: it is not UTF-8")
        _, (problem,) = load_file("/nonexistent")
        self.assertIn("no such file", problem)

    def test_config_option(self) -> None:
        """The file results in a TCP frontend with round robin and a connection log."""
        settings = flatten_settings(parse_options("-c", self.write(VALID)))
        self.assertEqual(settings.mode, "tcp")
        self.assertEqual(settings.bind, (TcpAddress("127.0.0.1", 8080),))
        self.assertEqual(len(settings.servers), 2)
        self.assertEqual(settings.algorithm, "round-robin")
        self.assertTrue(settings.log_connections)

    def test_reference_to_the_pool(self) -> None:
        """The frontend forwards to the pool of the file."""
        settings = self.parse(
            '[frontend]\nbind_on = "127.0.0.1:8080"\n[[frontend.backend]]\nforward_to = "b:1"\n'
        )
        (frontend,), (pool,) = settings.frontends, settings.pools
        self.assertEqual(frontend.bind, (TcpAddress("127.0.0.1", 8080),))
        self.assertEqual((frontend.mode, frontend.pool), ("tcp", pool.name))
        self.assertEqual(pool.servers, (ServerSettings(TcpAddress("b", 1)),))
        self.assertEqual(pool.algorithm, "round-robin")

    def test_options_override_the_file(self) -> None:
        """Options replace the listener, the servers and defaults."""
        path = self.write(VALID)
        settings = flatten_settings(
            parse_options("-c", path, "-b", "b:2", "-u", "c:3", "--cooldown", "3")
        )
        self.assertEqual(settings.bind, (TcpAddress("b", 2),))
        self.assertEqual(settings.servers, (ServerSettings(TcpAddress("c", 3)),))
        self.assertEqual(settings.passive.cooldown, 3)

    def test_mistakes_prevent_the_start(self) -> None:
        """The command line rejects a file with mistakes and names the file."""
        problems = option_problems("-c", self.write("nonsense"))
        self.assertIn(self.path, problems[0])
