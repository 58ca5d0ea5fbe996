"""S3's file."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.toml_file import load_file
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import ServerSettings
from balancebeam.process.options import CommandLineOptions as Options
from tests.helpers.memory import flatten_settings

GOOD = """\
# S3's own
[frontend]
bind_on = "127.0.0.1:8080"

[[frontend.backend]]
forward_to = "127.0.0.1:9001"

[[frontend.backend]]
forward_to = "app.example.org:9002"
"""


class MiniBalancerTests(SynchronousTestCase):
    """Reading it, and what is said when it is wrong."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "mini-balancer.local.toml")

    def read(self, text: str | bytes) -> tuple[Any, list[str]]:
        with open(self.path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        settings, problems = load_file(self.path)
        return flatten_settings(settings) if settings.frontends else None, problems

    def test_the_file_of_s3(self) -> None:
        found, problems = self.read(GOOD)
        self.assertEqual(problems, [])
        self.assertEqual(found.bind, (TcpAddress("127.0.0.1", 8080),))
        self.assertEqual(
            found.servers,
            (
                ServerSettings(TcpAddress("127.0.0.1", 9001)),
                ServerSettings(TcpAddress("app.example.org", 9002)),
            ),
        )

    def test_mistakes(self) -> None:
        for text, line, words in (
            (GOOD.replace("9001", "x"), 6, ["forward_to", "'127.0.0.1:x'", "host:port"]),
            (GOOD.replace('"app.example.org:9002"', "9002"), 9, ["forward_to", "host:port"]),
            (GOOD.replace("127.0.0.1:8080", "8080"), 3, ["bind_on", "'8080'"]),
            (GOOD.replace("bind_on", "bind"), None, ["bind_on"]),
            (GOOD.replace("bind_on", "bind"), 3, ["frontend.bind is not known", "bind_on"]),
            (GOOD.replace("frontend", "frontent"), 2, ["frontent: is not known", "frontend?"]),
            (GOOD + "weight = 3\n", 10, ["frontend.backend.weight is not known", "forward_to"]),
            ('[frontend]\nbind_on = "a:1"\n', 1, ["[[frontend.backend]]"]),
            (GOOD.replace("app.example.org:9002", "127.0.0.1:9001"), 9, ["forward_to", "twice"]),
            ("frontend = 1\n", 1, ["[[frontend]]"]),
            ("[frontend]\nbind_on = x\n", 2, ["is no TOML", "Invalid value"]),
            ("frontend = 'x\n", None, ["is no TOML", "end of document"]),
        ):
            _, problems = self.read(text)
            place = self.path if line is None else f"{self.path}:{line}"
            fitting = [
                problem
                for problem in problems
                if problem.startswith(place + ": ") and all(word in problem for word in words)
            ]
            self.assertEqual(len(fitting), 1, msg=f"{text}\n{problems}")

    def test_the_line_of_the_right_backend(self) -> None:
        text = (
            '[frontend]\nbind_on = "a:1"\n# x\n'
            '[[frontend.backend]]\n[[frontend.backend]]\nforward_to = "bad host"\n'
        )
        _, problems = self.read(text)
        self.assertEqual(len(problems), 2)
        self.assertIn(f'{self.path}:4: needs forward_to = "host:port"', problems)
        self.assertTrue(problems[1].startswith(f"{self.path}:6: forward_to: 'bad host'"), problems)
        _, (problem,) = self.read('frontend = {bind_on = "a:1", backend = [{forward_to = 1}]}\n')
        self.assertTrue(problem.startswith(f"{self.path}: needs forward_to"), problem)

    def test_all_at_once(self) -> None:
        _, problems = self.read(GOOD.replace("127.0.0.1", "300.0.0.1") + "x = 1\n")
        self.assertEqual(len(problems), 3)

    def test_what_cannot_be_read(self) -> None:
        _, (problem,) = self.read(b"\xff")
        self.assertEqual(problem, f"{self.path}: cannot be read: it is not UTF-8")
        _, (problem,) = load_file("/nonexistent")
        self.assertIn("No such file", problem)

    def test_the_option(self) -> None:
        self.read(GOOD)
        options = Options()
        options.parseOptions(["-c", self.path])
        settings = flatten_settings(options.settings)
        self.assertEqual(settings.mode, "tcp")
        self.assertEqual(settings.bind, (TcpAddress("127.0.0.1", 8080),))
        self.assertEqual(len(settings.servers), 2)
        self.assertEqual(settings.algorithm, "round-robin")
        self.assertTrue(settings.log_connections)

    def test_the_command_line_wins(self) -> None:
        self.read(GOOD)
        options = Options()
        options.parseOptions(["-c", self.path, "-b", "b:2", "-u", "c:3", "--cooldown", "3"])
        settings = flatten_settings(options.settings)
        self.assertEqual(settings.bind, (TcpAddress("b", 2),))
        self.assertEqual(settings.servers, (ServerSettings(TcpAddress("c", 3)),))
        self.assertEqual(settings.passive.cooldown, 3)

    def test_mistakes_end_the_program(self) -> None:
        self.read("nonsense")
        error = self.assertRaises(ConfigError, Options().parseOptions, ["-c", self.path])
        self.assertIn(self.path, str(error))
