"""Lines that are added to a file, whatever becomes of it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability import log_file
from balancebeam.observability.log_file import LogFile


def temporary_log_path(case: SynchronousTestCase) -> Path:
    """Where nothing is yet, in a folder that is gone after the test."""
    folder = tempfile.mkdtemp()
    case.addCleanup(shutil.rmtree, folder)
    return Path(folder) / "access.log"


class LogFileTests(SynchronousTestCase):
    """One file."""

    def setUp(self) -> None:
        self.path = temporary_log_path(self)
        self.file = LogFile(str(self.path))
        self.addCleanup(self.file.close)
        self.said: list[str] = []
        hear: Any = self._hear
        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)

    def _hear(self, event: LogEvent) -> None:
        if "balancebeam" in str(event.get("log_namespace")):
            self.said.append(formatEvent(event))

    def fail_with(self, number: int, at_once: int = 0) -> list[int]:
        """Have every write fail, but let each take `at_once` octets if that is not 0."""
        real, octets = os.write, [at_once]

        def write(descriptor: int, data: Any) -> int:
            taken, octets[0] = octets[0], 0
            if taken:
                return real(descriptor, data[:taken])
            raise OSError(number, os.strerror(number))

        self.patch(os, "write", write)
        return octets

    def mend(self) -> None:
        self.patch(os, "write", WRITE)

    def test_collected(self) -> None:
        self.file.open()
        self.file.write("one\n")
        self.assertEqual(self.path.read_text(), "")
        self.file.flush()
        self.assertEqual(self.path.read_text(), "one\n")
        line = "x" * 1023 + "\n"
        for _ in range(64):
            self.file.write(line)
        self.assertEqual(self.path.read_text(), "one\n" + 64 * line)
        self.file.write("two\n")
        self.file.close()
        self.assertEqual(self.path.read_text()[-4:], "two\n")

    def test_descriptor(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.file.open()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        assert self.file._file is not None
        descriptor = self.file._file._descriptor
        self.assertTrue(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
        self.assertTrue(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)

    def test_impossible(self) -> None:
        for path in (str(self.path / "file"), os.path.dirname(self.path.absolute()), "a\0b"):
            self.assertRaises((OSError, ValueError), LogFile(path).open)

    def test_rotated(self) -> None:
        self.file.open()
        self.file.write("old\n")
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.file.write("old too\n")
        self.file.reopen()
        self.file.write("new\n")
        self.file.flush()
        self.assertEqual(moved.read_text(), "old\nold too\n")
        self.assertEqual(self.path.read_text(), "new\n")

    def test_rotation_that_fails(self) -> None:
        self.file.open()
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.path.mkdir()
        self.file.reopen()
        self.file.write("line\n")
        self.file.flush()
        self.assertEqual(moved.read_text(), "line\n")
        self.assertIn("cannot be opened anew", self.said[0])
        self.assertIn("is a directory", self.said[0])

    def test_full_disk(self) -> None:
        self.file.open()
        self.fail_with(errno.ENOSPC, at_once=6)
        self.file.write("first\nsecond\n")
        for _ in range(5):
            self.file.flush()
        self.assertEqual(len(self.said), 1, self.said)
        self.assertIn("no space left on device", self.said[0])
        self.mend()
        self.file.flush()
        self.assertEqual(self.path.read_text(), "first\nsecond\n")
        self.assertIn("0 lines were lost", self.said[1])
        self.assertEqual(self.file.dropped_lines, 0)

    def test_full_disk_for_long(self) -> None:
        self.file.open()
        calls = self.fail_with(errno.ENOSPC)
        line = "x" * 1023 + "\n"
        for _ in range(3000):
            self.file.write(line)
        self.assertEqual(calls, [0])
        self.assertEqual(len(self.said), 1, self.said)
        kept = log_file.MAX_BUFFERED // 1024 - 1
        self.assertEqual(self.file.dropped_lines, 3000 - kept)
        self.mend()
        self.file.flush()
        self.assertEqual(self.path.read_text(), kept * line)
        self.assertIn(f"{3000 - kept} lines were lost", self.said[1])
        # From here on as before, and the next trouble is told of again.
        self.fail_with(errno.EIO)
        self.file.write(line)
        self.file.flush()
        self.assertEqual(len(self.said), 3)
        self.mend()

    def test_torn_line_is_not_continued_elsewhere(self) -> None:
        self.file.open()
        self.fail_with(errno.ENOSPC, at_once=3)
        self.file.write("first\nsecond\n")
        self.file.flush()
        self.path.rename(self.path.with_suffix(".1"))
        self.file.reopen()
        self.mend()
        self.file.flush()
        self.assertEqual(self.path.read_text(), "second\n")
        self.assertEqual(self.file.dropped_lines, 1)

    def test_closed_in_trouble(self) -> None:
        self.file.open()
        self.fail_with(errno.ENOSPC, at_once=3)
        self.file.write("first\nsecond\n")
        self.file.close()
        self.assertEqual(self.file.dropped_lines, 2)
        self.assertIn("is closed; 2 lines were lost", self.said[1])
        self.assertFalse(self.file.is_open)
        self.mend()

    def test_late_line(self) -> None:
        self.file.open()
        self.file.close()
        self.file.write("late\n")
        self.assertEqual(self.path.read_text(), "late\n")
        self.assertFalse(self.file.is_open)
        gone = LogFile(str(self.path / "below"))
        gone.write("late\n")
        gone.write("late\n")
        self.assertEqual(gone.dropped_lines, 2)
        self.assertEqual(len(self.said), 1)

    def test_pipe(self) -> None:
        os.mkfifo(self.path)
        self.assertRaises(OSError, self.file.open)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.file.open()
        line = "x" * 1023 + "\n"
        for _ in range(500):
            self.file.write(line)
            self.file.flush()
        # Nobody reads, nobody waits.
        self.assertEqual((self.file.dropped_lines, self.said), (0, []))
        data = b""
        while len(data) < 500 * 1024:
            data += os.read(reader, 1 << 20)
            self.file.flush()
        self.assertEqual(data, line.encode() * 500)
        os.close(reader)
        self.file.write(line)
        self.file.flush()
        self.assertIn("broken pipe", self.said[-1])

    def test_unread_pipe_for_long(self) -> None:
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.file.open()
        for _ in range(3000):
            self.file.write("x" * 1023 + "\n")
        self.assertGreater(self.file.dropped_lines, 1000)
        self.assertEqual(len(self.said), 1)
        self.assertIn("nobody reads it", self.said[0])

    def test_stdout(self) -> None:
        script = (
            "import sys; from balancebeam.observability.log_file import LogFile\n"
            "file = LogFile('-'); file.open(); file.write('one\\n'); file.reopen()\n"
            "file.write('x' * 100 + '\\n'); file.close()\n"
            "import os; print(os.get_blocking(1))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
        )
        self.assertEqual(done.stdout, b"one\n" + 100 * b"x" + b"\nTrue\n")


WRITE = os.write
