"""`docs/command-line.rst` has every option and every operator command."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.arguments import COMMANDS, parse_arguments
from balancebeam.tap import Options
from tests.helpers.documentation import Entry, entries, read_page, table_rows
from tests.unit.docs.test_configuration_reference import defaults

_NAME = re.compile(r"(--?[a-z-]+)")
_DEFAULT = re.compile(r"Default: (.+?)\. Key: :confval:`([\w.]+)`\.", re.DOTALL)

# Options whose default is not that of the key in a configuration file: active checks are off
# unless one of these is given, and then the path is another.
OTHER_DEFAULTS = {
    "--active-health-check-path": '``"/"``',
    "--max-requests-per-minute": "``0``",
    "--upstream-insecure": "``false``",
}


def split_page() -> tuple[list[Entry], list[Entry]]:
    """The options of the program, and the common options of the operator commands."""
    own = read_page("command-line.rst").partition(".. program:: balancebeam COMMAND")[0]
    found = entries("command-line.rst", "option")
    count = own.count(".. option::")
    return found[:count], found[count:]


def command_help(command: str) -> str:
    """What `balancebeam COMMAND --help` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        parse_arguments([command, "--help"], {})
    return output.getvalue()


class CommandLineReference(SynchronousTestCase):
    """The page and the options agree."""

    def test_every_option_is_documented(self) -> None:
        """The page has all options, long and short, and no others."""
        options: Any = Options()
        expected = {f"--{name.rstrip('=')}" for name in options.longOpt}
        expected |= {f"-{letter}" for letter in options.shortOpt.replace(":", "")}
        own, _ = split_page()
        documented = [name for entry in own for name in _NAME.findall(entry.names)]
        self.assertEqual(len(documented), len(set(documented)))
        self.assertEqual(set(documented), expected)

    def test_parameters(self) -> None:
        """An option is shown with a value if it takes one."""
        options: Any = Options()
        flags = {f"--{name}" for name in options.longOpt if not name.endswith("=")}
        own, _ = split_page()
        for entry in own:
            for name in re.findall(r"--[a-z-]+", entry.names):
                self.assertEqual("<" in entry.names, name not in flags, name)

    def test_defaults(self) -> None:
        """The default of an option is that of its key."""
        expected = defaults()
        own, _ = split_page()
        documented = 0
        for entry in own:
            match = _DEFAULT.search(entry.text)
            name = entry.names.rpartition("--")[2].split()[0]
            if match is None:
                self.assertIn(name, ("config", "check", "version", "help"))
                continue
            documented += 1
            text, key = match.groups()
            other = OTHER_DEFAULTS.get(f"--{name}")
            if other is not None:
                self.assertEqual(text, other, name)
            elif name in ("upstream", "hosts", "admin", "redirect-https"):
                self.assertEqual(text, "none", name)
            elif key in expected:
                value = expected[key]
                toml = str(value).lower() if isinstance(value, bool) else str(value)
                self.assertEqual(text.strip("`").strip('"'), toml.replace("'", '"'), name)
            else:
                self.assertEqual(text, "none", name)
        self.assertGreater(documented, 20)

    def test_every_command_is_documented(self) -> None:
        """The table of operator commands has all of them, with their own arguments."""
        rows = table_rows("command-line.rst", "Operator commands")
        self.assertEqual([row[0].strip("`") for row in rows], list(COMMANDS))
        common = {name for entry in split_page()[1] for name in _NAME.findall(entry.names)}
        for command, arguments, _ in rows:
            text = command_help(command.strip("`"))
            options = set(re.findall(r"(?<![\w-])--[a-z-]+", text)) - {"--help"}
            documented = set(re.findall(r"--[a-z-]+", arguments))
            self.assertEqual(documented | common, options, command)
            self.assertEqual("ADDRESS" in arguments, "ADDRESS" in text, command)
