"""Temporary files of tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def temporary_directory(case: SynchronousTestCase) -> Path:
    """A new directory, which is removed after the test."""
    directory = tempfile.mkdtemp()
    case.addCleanup(shutil.rmtree, directory)
    return Path(directory)


def temporary_log_path(case: SynchronousTestCase) -> Path:
    """The path of a log file that does not exist yet; its directory is removed after the test."""
    return temporary_directory(case) / "access.log"
