"""Arguments of the operator commands."""

from __future__ import annotations

import math
import os
import sys
from argparse import Namespace

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.arguments import is_command, parse_arguments


def parse(*arguments: str, **environment: str) -> Namespace:
    """Parse `arguments` with no environment variables but `environment`."""
    return parse_arguments(arguments, environment)


class IsCommandTests(SynchronousTestCase):
    """Distinction between operator commands and options of the balancer."""

    def test_commands(self) -> None:
        """A command may follow the common options."""
        for text in (
            "status",
            "drain 10.0.0.1:80",
            "--admin 127.0.0.1:1 status",
            "--admin=127.0.0.1:1 --json --timeout 3 --token-file f reload",
        ):
            self.assertTrue(is_command(text.split()), text)

    def test_balancer_options(self) -> None:
        """The name of a command as the value of an option is no command."""
        for text in (
            "",
            "--demo 3",
            "--admin 127.0.0.1:1",
            "--admin status",
            "--admin",
            "--help",
            "--upstream status",
            "-c reload",
            "stat",
        ):
            self.assertFalse(is_command(text.split()), text)


class ParseArgumentsTests(SynchronousTestCase):
    """Parsed arguments of commands."""

    def test_common_options_before_or_after_the_command(self) -> None:
        """Common options may be before or after the command; the last value applies."""
        for text in (
            "--admin [::1]:1 --json --timeout 2.5 --token-file f drain 10.0.0.1:80",
            "drain --json --timeout=2.5 10.0.0.1:80 --admin [::1]:1 --token-file=f",
            "--json --admin 1.1.1.1:1 drain 10.0.0.1:80 --admin [::1]:1 --token-file f "
            "--timeout 2.5",
        ):
            args = parse(*text.split())
            self.assertEqual(args.command, "drain")
            self.assertEqual(args.address, "10.0.0.1:80")
            self.assertEqual(args.admin, "[::1]:1")
            self.assertEqual(args.timeout, 2.5)
            self.assertEqual(args.token_file, "f")
            self.assertTrue(args.json)

    def test_defaults(self) -> None:
        """The default address is that of the environment, unless the variable is empty."""
        args = parse("status")
        self.assertEqual(args.admin, "127.0.0.1:1101")
        self.assertEqual(args.timeout, 10)
        self.assertEqual((args.token_file, args.json, args.pool), (None, False, None))
        self.assertEqual(parse("status", BALANCEBEAM_ADMIN="unix:/a").admin, "unix:/a")
        self.assertEqual(parse("status", BALANCEBEAM_ADMIN="").admin, "127.0.0.1:1101")
        both = parse("status", "--admin", "b:1", BALANCEBEAM_ADMIN="unix:/a")
        self.assertEqual(both.admin, "b:1")

    def test_wait_with_and_without_seconds(self) -> None:
        """`--wait` without a number has no time limit, wherever the address is."""
        for text, seconds in (
            ("drain 10.0.0.1:80", None),
            ("drain 10.0.0.1:80 --wait", math.inf),
            ("drain --wait 10.0.0.1:80", math.inf),
            ("drain --wait --pool a 10.0.0.1:80", math.inf),
            ("drain --wait 5 10.0.0.1:80", 5),
            ("drain 10.0.0.1:80 --wait=.5", 0.5),
            ("remove 10.0.0.1:80 --wait 2", 2),
        ):
            self.assertEqual(parse(*text.split()).wait, seconds, text)
        self.assertIsNone(parse("weight", "10.0.0.1:80", "3").wait)

    def test_invalid_usage(self) -> None:
        """Invalid arguments end the program with status 2."""
        self.patch(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115
        self.addCleanup(sys.stderr.close)
        for text in (
            "drain",
            "weight 10.0.0.1:80",
            "weight 10.0.0.1:80 -1",
            "weight 10.0.0.1:80 1_0",
            "weight 10.0.0.1:80 \u0663",
            "status extra",
            "status --token secret",
            "status --timeout 0",
            "status --timeout inf",
            "status --timeout nan",
            "status --timeout 1e3",
            "drain 10.0.0.1:80 --wait=-1",
            "ready 10.0.0.1:80 --wait",
            "reload --pool a",
        ):
            with self.assertRaises(SystemExit) as caught:
                parse(*text.split())
            self.assertEqual(caught.exception.code, 2, text)
