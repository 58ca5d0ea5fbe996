"""Hot restart: the command line and the exit of the new process."""

from __future__ import annotations

import sys
from unittest import mock

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.process.hot_restart import NewProcess, original_command


class HotRestartTests(SynchronousTestCase):
    """The new process, as the old process starts and watches it."""

    def test_exit_of_new_process_is_reported(self) -> None:
        """The callback is called when the new process exits."""
        exits: list[str] = []
        NewProcess(exits.append).processExited(Failure(OSError("crashed")))
        self.assertEqual(exits, ["crashed"])

    def test_original_command(self) -> None:
        """The command has the interpreter first; without sys.orig_argv it runs twistd."""
        self.assertEqual(original_command()[0], sys.executable)
        with mock.patch.object(sys, "orig_argv", None, create=True):
            with mock.patch.object(sys, "argv", ["x", "-n", "balancebeam"]):
                self.assertEqual(original_command()[-2:], ["-n", "balancebeam"])
                self.assertIn("twistd", original_command()[2])
