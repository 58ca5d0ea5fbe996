"""The table [tracing]."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.dump import MASK, dump
from balancebeam.config.toml_file import finalize, load_file
from balancebeam.core.settings import TracingSettings
from tests.helpers.files import temporary_directory


class TracingTableTests(SynchronousTestCase):
    """Values and mistakes."""

    def read(self, text: str) -> tuple[TracingSettings | None, list[str]]:
        """The settings of a table with these lines, and the mistakes without file and line."""
        path = temporary_directory(self) / "site.toml"
        path.write_text(f"[tracing]\n{text}\n")
        settings, problems = load_file(str(path))
        return settings.tracing, [problem.partition(": ")[2] for problem in problems]

    def test_defaults(self) -> None:
        """An empty table has the defaults; without a table there is no tracing."""
        self.assertEqual(self.read(""), (TracingSettings(), []))
        path = temporary_directory(self) / "site.toml"
        path.write_text("")
        self.assertIsNone(load_file(str(path))[0].tracing)

    def test_all_keys(self) -> None:
        """Every key is read."""
        settings, problems = self.read(
            'endpoint = "https://[::1]:4318/x"\nservice_name = "edge 1"\nsample_ratio = 0.5\n'
            'trusted_parents_only = true\nheaders = {X-Key = "a b"}\ntimeout = 2\nqueue_size = 3'
        )
        self.assertEqual(problems, [])
        fields = (("X-Key", "a b"),)
        expected = TracingSettings("https://[::1]:4318/x", "edge 1", 0.5, True, fields, 2.0, 3)
        self.assertEqual(settings, expected)

    def test_invalid_endpoints(self) -> None:
        """Only http and https, with a host and without user name, query and fragment."""
        for url in (
            *("", "127.0.0.1:4318", "ftp://a/", "http://", "http:///v1", "http://a:b/"),
            *("http://a:70000/", "http://a:0/", "http://user:pass@a/", "http://a/?b", "http://a/#"),
            *("http://[::1/", "http://a b/", "http://a/\\r\\nX: y", "http://\u00e4/"),
        ):
            _, problems = self.read(f'endpoint = "{url}"')
            self.assertEqual(len(problems), 1, url)
            self.assertIn("tracing.endpoint: invalid endpoint", problems[0])

    def test_invalid_values(self) -> None:
        """Other mistakes are reported with their key; values of fields are not shown."""
        for line, message in {
            "sample_ratio = 1.5": "expected a number from 0 to 1",
            "queue_size = 0": "expected a whole number from 1 to 100000",
            "timeout = 0": "expected seconds, more than 0",
            'service_name = " "': "expected 1 to 255 printable characters",
            'trusted_parents_only = "yes"': "expected true or false",
            'headers = "a"': "expected a table",
            'headers = {"a b" = "c"}': "invalid field name",
            'headers = {Host = "c"}': "invalid field name",
            'headers = {a = "c", A = "c"}': "duplicate field",
            'headers = {a = "hush\\r\\nB: c"}': "invalid value of 'a'",
            'headers = {a = ["hush"]}': "invalid value of 'a'",
            "sample_rate = 1": "did you mean sample_ratio?",
        }.items():
            _, problems = self.read(line)
            self.assertEqual(len(problems), 1, line)
            self.assertIn(message, problems[0])
            self.assertNotIn("hush", problems[0])

    def test_secrets_are_masked(self) -> None:
        """A masked dump and `repr` do not show the values of fields."""
        path = temporary_directory(self) / "site.toml"
        path.write_text('[tracing]\nheaders = {Authorization = "hush"}\n')
        settings = finalize(load_file(str(path))[0])
        self.assertIn("hush", dump(settings))
        masked = dump(settings, mask=True)
        self.assertIn(f'Authorization = "{MASK}"', masked)
        self.assertNotIn("hush", masked + repr(settings))

    def test_check_without_the_library(self) -> None:
        """`--check` reports a missing library with the command that installs it."""
        folder = temporary_directory(self)
        Path(folder, "site.toml").write_text('[tracing]\n[[pool]]\nupstreams = ["a:1"]\n')
        program = (
            "import sys\n"
            "sys.modules['opentelemetry'] = None\n"
            "from balancebeam.process.options import CommandLineOptions\n"
            "CommandLineOptions().parseOptions(['--check', '--config', 'site.toml'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("[tracing]: the library opentelemetry", done.stderr)
        self.assertIn("pip install 'balancebeam[otlp]'", done.stderr)
