"""Exit of the process when its configuration is invalid."""

from __future__ import annotations

import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import ConfigError
from balancebeam.process.exit import StartupExit, exit_on_config_error


class StartupExitTests(SynchronousTestCase):
    """The exception that ends the process."""

    def exit(self) -> StartupExit:
        """The exit for a configuration with two problems."""

        def fail() -> None:
            with exit_on_config_error():
                raise ConfigError("--bind: first", "--upstream: second")

        error: StartupExit = self.assertRaises(StartupExit, fail)
        return error

    def test_one_line_for_each_problem(self) -> None:
        """The text, which Python prints at exit, has one prefixed line for each problem."""
        error = self.exit()
        self.assertEqual(str(error), "balancebeam: --bind: first\nbalancebeam: --upstream: second")
        self.assertEqual(error.code, str(error))

    def test_kinds(self) -> None:
        """It is a `SystemExit`, and an `Exception` for which twistd removes its pid file."""
        error = self.exit()
        self.assertIsInstance(error, SystemExit)
        self.assertIsInstance(error, Exception)
        self.assertNotIsInstance(ConfigError("x"), SystemExit)

    def test_other_errors_pass(self) -> None:
        """Errors other than `ConfigError` are not changed."""

        def fail() -> None:
            with exit_on_config_error():
                raise ValueError("x")

        self.assertRaises(ValueError, fail)

    def test_original_stderr(self) -> None:
        """After twistd has redirected stderr to its log, the original is restored."""
        log = StringIO()
        self.patch(sys, "stderr", log)
        self.exit()
        self.assertIs(sys.stderr, log)

        def fail() -> None:
            with exit_on_config_error(stderr_redirected=True):
                raise ConfigError("x")

        self.patch(sys, "__stderr__", StringIO())
        self.assertRaises(StartupExit, fail)
        self.assertIs(sys.stderr, sys.__stderr__)
