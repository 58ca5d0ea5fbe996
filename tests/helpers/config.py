"""Configuration files in tests: example files, and a test case that loads them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.toml_file import finalize, load_file
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import Settings
from balancebeam.process.options import CommandLineOptions

# One pool with one server.
ONE_POOL = '[[pool]]\nupstreams = ["a:1"]\n'

# Two frontends, each with a pool of its own.
TWO_FRONTENDS = """\
[[frontend]]
name = "one"
bind = "127.0.0.1:1"
pool = "app"
[[frontend]]
name = "two"
bind = "127.0.0.1:2"
pool = "other"
[[pool]]
name = "app"
upstreams = ["a:1"]
[[pool]]
name = "other"
upstreams = ["b:1"]
algorithm = "random"
"""

# The example of the documentation, with most keys.
FULL_FILE = """\
state = "/var/lib/balancebeam"
drain_timeout = 20
demo = 2

[[frontend]]
name = "web"
bind = ["0.0.0.0:1100"]
mode = "http"                      # or "tcp"
pool = "app"                       # of requests that match no route
trusted_proxies = ["10.0.0.0/8"]
max_body = "1GiB"                  # none by default

registration = false               # and registration_from = ["10.1.0.0/16"]
access_log = "-"                   # access_log_format = "combined" | "json"

[[frontend.route]]                 # the first that matches
host = "api.example.org"           # or "*.example.org"
path = "/v1"
pool = "api"

[[frontend.limit]]
algorithm = "token-bucket"
requests = 600
per = 60
burst = 50
key = "client"
ipv6_prefix = 64
dry_run = false

[frontend.timeouts]
header = 10
idle = 60

[[frontend]]
name = "db"
bind = "unix:/run/db"
mode = "tcp"
pool = "db"

[[pool]]
name = "app"
algorithm = "power-of-two"
upstreams = [
    "127.0.0.1:8080",
    {address = "127.0.0.1:8081", weight = 5, max_in_flight = 200, backup = false},
]
timeouts = {connect = 5, upstream = 60}

[pool.health]
path = "/health"
interval = 10
timeout = 2
fall = 2
rise = 2
status = "200-299"

[pool.passive]
failures = 1
cooldown = 10

[pool.retries]
attempts = 3
budget = 0.2

[[pool]]
name = "api"
upstreams = ["[::1]:80,weight=0"]
[[pool.limit]]
algorithm = "concurrent"
requests = 5
key = ["header:X-Api-Key", "host"]

[[pool]]
name = "db"
upstreams = ["127.0.0.1:5432"]
health = {interval = 3}

[admin]
bind = "127.0.0.1:1101"
token_file = "/etc/balancebeam/token"
"""


class ConfigFileTestCase(SynchronousTestCase):
    """
    A temporary directory with a configuration file.

    Attributes:
        folder: the directory.
        path: the path of the configuration file, which `write` creates.
    """

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "balancebeam.toml")

    def write(self, text: str | bytes, name: str = "balancebeam.toml") -> str:
        """Write a file into the directory; return its path."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, text: str) -> Settings:
        """Return the complete settings of a file without mistakes."""
        settings, problems = load_file(self.write(text))
        self.assertEqual(problems, [])
        return finalize(settings)

    def problems(self, text: str) -> list[str]:
        """Return the mistakes of a file, without its path: `<line>: <key>: <mistake>`."""
        _, problems = load_file(self.write(text))
        for problem in problems:
            self.assertTrue(problem.startswith(self.path + ":"), problem)
        return [problem[len(self.path) + 1 :] for problem in problems]

    def parse(self, text: str, *arguments: str) -> Settings:
        """Return the settings of a file and options."""
        return parse_options("-c", self.write(text), *arguments)

    def option_problems(self, text: str, *arguments: str) -> list[str]:
        """Return the mistakes of a file and options, without the path of the file."""
        problems = option_problems("-c", self.write(text), *arguments)
        self.assertNotEqual(problems, [])
        return [problem.replace(self.path + ":", "") for problem in problems]

    def check(self, text: str, *arguments: str) -> tuple[Settings, str]:
        """
        Return the settings of a file and options, and the output of `--check`.

        Its standard error is in `warnings`.
        """
        options = CommandLineOptions()
        output, self.warnings = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(self.warnings):
            done = self.assertRaises(
                SystemExit, options.parseOptions, ["-c", self.write(text), *arguments, "--check"]
            )
        self.assertEqual(done.code, 0)
        return options.settings, output.getvalue()

    def assert_each_mistake(self, cases: Iterable[tuple[str, int | None, list[str]]]) -> None:
        """
        Load files with one mistake each, and check its message.

        Args:
            cases: for each file its text, the line of the mistake (`None` for any), and texts
                that the message contains.
        """
        for text, line, parts in cases:
            with self.subTest(text):
                (problem,) = self.problems(text)
                if line is not None:
                    self.assertEqual(problem.partition(":")[0], str(line), problem)
                for part in parts:
                    self.assertIn(part, problem)
                self.assertEqual(problem.splitlines(), [problem])


def parse_options(*arguments: str) -> Settings:
    """Return the settings of a command line. Raises the error of invalid options."""
    options = CommandLineOptions()
    options.parseOptions(list(arguments))
    return options.settings


def option_problems(*arguments: str) -> list[str]:
    """Return the mistakes with which a command line is rejected; empty if it is valid."""
    try:
        parse_options(*arguments)
    except ConfigError as error:
        return list(error.problems)
    return []
