"""The log of the process: destination, format and rotation."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from typing import Any

from twisted.logger import ILogObserver, LogLevel
from twisted.python.components import Componentized
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import ConfigError
from balancebeam.process.program_log import ProgramLog
from tests.helpers.files import temporary_log_path

EVENT: Any = {"log_format": "a {key}", "log_level": LogLevel.info, "log_time": 1.0, "key": "b"}


class ProgramLogTests(SynchronousTestCase):
    """The log observer of a twistd application."""

    def setUp(self) -> None:
        self.path = temporary_log_path(self)
        self.format = "text"
        self.application = Componentized()

    def attach(self, **options: Any) -> ProgramLog:
        """Attach the log of a process with these options of twistd."""
        log = ProgramLog(options, lambda: self.format)
        log.attach(self.application)
        if log.file is not None:
            self.addCleanup(log.file.close)
        return log

    def write(self) -> None:
        """Write an event to the observer of the application."""
        self.application.getComponent(ILogObserver)(dict(EVENT))

    def test_file(self) -> None:
        """Events go to the file of --logfile; the format may change with a reload."""
        self.attach(logfile=str(self.path))
        self.write()
        self.format = "json"
        self.write()
        text, line = self.path.read_text().splitlines()
        self.assertTrue(text.endswith(" a b"), text)
        self.assertEqual(json.loads(line)["message"], "a b")
        self.assertEqual(json.loads(line)["key"], "b")

    def test_stdout(self) -> None:
        """In the foreground, events go to stdout without --logfile, and with "-"."""
        for options in ({}, {"logfile": "-"}):
            output = StringIO()
            self.patch(sys, "stdout", output)
            log = self.attach(nodaemon=True, **options)
            self.write()
            log.reopen()
            self.assertIsNone(log.file)
            self.assertIn("a b", output.getvalue())

    def test_daemon(self) -> None:
        """A daemon without --logfile writes twistd.log in the current directory."""
        self.path.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.path)
        self.attach()
        self.write()
        self.assertIn("a b", (self.path / "twistd.log").read_text())

    def test_observer_of_twistd(self) -> None:
        """With --logger or --syslog, and for a daemon with stdout, twistd decides."""
        for options in ({"logger": object()}, {"syslog": True}, {"logfile": "-"}):
            self.attach(**options)
            self.assertIsNone(self.application.getComponent(ILogObserver, None))

    def test_file_that_cannot_be_opened(self) -> None:
        """A log file that cannot be opened is an error of the start."""
        path = self.path / "below"
        error = self.assertRaises(ConfigError, self.attach, logfile=str(path))
        self.assertIn(f"--logfile {path}: no such file or directory", str(error))

    def test_rotation(self) -> None:
        """After `reopen` new lines go to a new file."""
        log = self.attach(logfile=str(self.path))
        self.write()
        moved = self.path.with_suffix(".old")
        self.path.rename(moved)
        self.write()
        log.reopen()
        self.write()
        self.assertEqual(moved.read_text().count("\n"), 2)
        self.assertEqual(self.path.read_text().count("\n"), 1)

    def test_failed_rotation(self) -> None:
        """If the path cannot be opened again, the old file stays in use."""
        folder = self.path
        folder.mkdir()
        log = self.attach(logfile=str(folder / "log"))
        moved = folder.with_suffix(".old")
        folder.rename(moved)
        log.reopen()
        self.write()
        self.assertIn("a b", (moved / "log").read_text())
