"""The pid file of `twistd` during a hot restart."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.process.pid_file import PidFile


class PidFileTests(SynchronousTestCase):
    """Renaming of the pid file."""

    def test_moved_aside_and_restored(self) -> None:
        """The file is renamed and renamed back, and twistd's option follows."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "twistd.pid")
        path.write_text("7")
        options: dict[str, Any] = {"pidfile": str(path)}
        pid_file = PidFile(options)
        pid_file.move_aside()
        self.assertFalse(path.exists())
        self.assertEqual(options["pidfile"], f"{path}.old")
        # A new process that has exited may have left its own file.
        path.write_text("8")
        pid_file.restore()
        self.assertEqual((path.read_text(), options["pidfile"]), ("7", str(path)))
        pid_file.restore()

    def test_without_pid_file(self) -> None:
        """Without a pid file, nothing is renamed."""
        PidFile({}).move_aside()
        PidFile({"pidfile": ""}).restore()
        PidFile({"pidfile": ""}).release()

    def test_released(self) -> None:
        """At exit twistd removes a file with the id of this process only."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "twistd.pid")
        for content, removed in ((str(os.getpid()), True), ("1", False), (None, False)):
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_text(content)
            options: dict[str, Any] = {"pidfile": str(path)}
            PidFile(options).release()
            self.assertEqual(options["pidfile"], str(path) if removed else "")

    def test_unreadable_file_is_left_to_twistd(self) -> None:
        """A file that cannot be read is removed by twistd, if it can."""
        # A directory cannot be read as a file, by root either.
        options: dict[str, Any] = {"pidfile": os.path.dirname(__file__)}
        PidFile(options).release()
        self.assertEqual(options["pidfile"], os.path.dirname(__file__))
