"""Log files of a process that drops privileges."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability.log_file import LogFile
from balancebeam.process import log_owner
from balancebeam.process.log_owner import LogOwner


class LogOwnerTests(SynchronousTestCase):
    """The owner of log files, and warnings about files that cannot be opened again."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.warnings: list[str] = []
        log = mock.Mock()
        log.warn = lambda text, **keys: self.warnings.append(text.format(**keys))
        self.patch(log_owner, "log", log)
        self.owner = LogOwner({"uid": 12345})

    def open(self, path: Path | str) -> LogFile:
        """An open log file."""
        file = LogFile(str(path))
        file.open()
        self.addCleanup(file.close)
        return file

    def take_over(self, path: Path | str) -> list[int]:
        """Open a log file and take it over; returns the new owners."""
        owners: list[int] = []
        self.patch(os, "fchown", lambda fd, uid, gid: owners.append(uid))
        self.owner.take_over([self.open(path)])
        return owners

    def test_owner_is_changed(self) -> None:
        """The user becomes the owner of a file, and can write it."""
        path = self.folder / "a.log"
        path.touch(0o400)
        self.assertEqual(self.take_over(path), [12345])
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_owner_of_linked_file_is_kept(self) -> None:
        """Symbolic and hard links are left alone: they may lead to a file of the system."""
        target = self.folder / "system"
        target.touch()
        (self.folder / "symbolic").symlink_to(target)
        self.assertEqual(self.take_over(self.folder / "symbolic"), [])
        os.link(target, self.folder / "hard")
        self.assertEqual(self.take_over(self.folder / "hard"), [])

    def test_stdout_and_pipes_are_kept(self) -> None:
        """Only regular files get another owner, and only they are checked."""
        self.assertEqual(self.take_over("-"), [])
        self.assertEqual(self.take_over("/dev/null"), [])
        self.owner.check(["-", "/dev/null"])
        self.assertEqual(self.warnings, [])

    def test_failure_is_logged(self) -> None:
        """A failed change of the owner is logged and does not stop the start."""
        file = self.open(self.folder / "a.log")
        self.patch(os, "fchown", mock.Mock(side_effect=PermissionError(1, "not permitted")))
        self.owner.take_over([file])
        self.assertIn("cannot change the owner of log file", self.warnings[0])

    def test_warnings(self) -> None:
        """A file that cannot be opened, or not be created, is reported; others are not."""
        path = str(self.folder / "a.log")
        Path(path).touch()
        denied: set[str] = set()
        self.patch(log_owner, "_is_allowed", lambda path, mode: path not in denied)
        self.owner.check([path])
        self.assertEqual(self.warnings, [])
        denied.add(str(self.folder))
        self.owner.check([path])
        self.assertIn("cannot be created by user 12345", self.warnings[0])
        denied.add(path)
        self.owner.check([path])
        self.assertIn("cannot be reopened by user 12345", self.warnings[1])
