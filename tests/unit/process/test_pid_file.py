"""The pid file of `twistd` during a hot restart."""

from __future__ import annotations

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
