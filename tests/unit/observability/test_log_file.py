"""Log files: buffering, rotation and failed writes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.observability import log_file
from balancebeam.observability.log_file import LogFile
from tests.helpers.files import temporary_log_path


class LogFileTests(SynchronousTestCase):
    """Buffering, rotation, full disks and pipes."""

    def setUp(self) -> None:
        self.path = temporary_log_path(self)
        self.file = LogFile(str(self.path))
        self.addCleanup(self.file.close)
        self.messages: list[str] = []
        observer: Any = self._log_event
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def _log_event(self, event: LogEvent) -> None:
        """Record the text of an event of this package."""
        if "balancebeam" in str(event.get("log_namespace")):
            self.messages.append(formatEvent(event))

    def fail_writes(self, number: int, at_once: int = 0) -> list[int]:
        """Have every write fail; the first takes `at_once` bytes if that is not 0."""
        real, allowed = os.write, [at_once]

        def write(descriptor: int, data: Any) -> int:
            """Take the bytes that are allowed, or fail."""
            count, allowed[0] = allowed[0], 0
            if count:
                return real(descriptor, data[:count])
            raise OSError(number, os.strerror(number))

        self.patch(os, "write", write)
        return allowed

    def restore_writes(self) -> None:
        """Have writes succeed again."""
        self.patch(os, "write", WRITE)

    def test_buffering(self) -> None:
        """Lines are written at a flush, at a full batch, and when the file is closed."""
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

    def test_open_flags(self) -> None:
        """A new file has mode 0640; the descriptor is close-on-exec and appends."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.file.open()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        assert self.file._file is not None
        descriptor = self.file._file._descriptor
        self.assertTrue(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
        self.assertTrue(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)

    def test_paths_that_cannot_be_opened(self) -> None:
        """A path that cannot be opened is an error of `open`."""
        for path in (str(self.path / "file"), os.path.dirname(self.path.absolute()), "a\0b"):
            self.assertRaises((OSError, ValueError), LogFile(path).open)

    def test_rotation(self) -> None:
        """After `reopen` new lines go to the new file, and buffered ones to the old."""
        self.file.open()
        self.file.write("old\n")
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.file.write("old too\n")
        self.file.reopen()
        self.file.write("new\n")
        self.file.flush()
        self.assertEqual(moved.read_text(), "old\nold too\n")
        self.assertEqual(self.path.read_text(), "new\n")

    def test_failed_rotation(self) -> None:
        """If the path cannot be opened again, the old file stays in use, and that is logged."""
        self.file.open()
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.path.mkdir()
        self.file.reopen()
        self.file.write("line\n")
        self.file.flush()
        self.assertEqual(moved.read_text(), "line\n")
        self.assertIn("cannot reopen log file", self.messages[0])
        self.assertIn("is a directory", self.messages[0])

    def test_short_disk_outage(self) -> None:
        """Lines wait in the buffer while the disk is full; nothing is lost or doubled."""
        self.file.open()
        self.fail_writes(errno.ENOSPC, at_once=6)
        self.file.write("first\nsecond\n")
        for _ in range(5):
            self.file.flush()
        self.assertEqual(len(self.messages), 1, self.messages)
        self.assertIn("no space left on device", self.messages[0])
        self.restore_writes()
        self.file.flush()
        self.assertEqual(self.path.read_text(), "first\nsecond\n")
        self.assertIn("0 lines dropped", self.messages[1])
        self.assertEqual(self.file.dropped_lines, 0)

    def test_long_disk_outage(self) -> None:
        """Lines beyond the buffer are dropped and counted; outage and recovery are logged once."""
        self.file.open()
        calls = self.fail_writes(errno.ENOSPC)
        line = "x" * 1023 + "\n"
        for _ in range(3000):
            self.file.write(line)
        self.assertEqual(calls, [0])
        self.assertEqual(len(self.messages), 1, self.messages)
        kept = log_file.MAX_BUFFERED // 1024 - 1
        self.assertEqual(self.file.dropped_lines, 3000 - kept)
        self.restore_writes()
        self.file.flush()
        self.assertEqual(self.path.read_text(), kept * line)
        self.assertIn(f"{3000 - kept} lines dropped", self.messages[1])
        # The next error is logged again.
        self.fail_writes(errno.EIO)
        self.file.write(line)
        self.file.flush()
        self.assertEqual(len(self.messages), 3)
        self.restore_writes()

    def test_partial_line_before_rotation(self) -> None:
        """The rest of a partially written line is not written to another file."""
        self.file.open()
        self.fail_writes(errno.ENOSPC, at_once=3)
        self.file.write("first\nsecond\n")
        self.file.flush()
        self.path.rename(self.path.with_suffix(".1"))
        self.file.reopen()
        self.restore_writes()
        self.file.flush()
        self.assertEqual(self.path.read_text(), "second\n")
        self.assertEqual(self.file.dropped_lines, 1)

    def test_close_while_writes_fail(self) -> None:
        """Lines that cannot be written at close are counted as dropped, and logged."""
        self.file.open()
        self.fail_writes(errno.ENOSPC, at_once=3)
        self.file.write("first\nsecond\n")
        self.file.close()
        self.assertEqual(self.file.dropped_lines, 2)
        self.assertIn("closed: 2 lines dropped", self.messages[1])
        self.assertFalse(self.file.is_open)
        self.restore_writes()

    def test_line_after_close(self) -> None:
        """A line after close opens the file for it; if that fails it is dropped."""
        self.file.open()
        self.file.close()
        self.file.write("late\n")
        self.assertEqual(self.path.read_text(), "late\n")
        self.assertFalse(self.file.is_open)
        unavailable = LogFile(str(self.path / "below"))
        unavailable.write("late\n")
        unavailable.write("late\n")
        self.assertEqual(unavailable.dropped_lines, 2)
        self.assertEqual(len(self.messages), 1)

    def test_pipe(self) -> None:
        """A full pipe does not block; the lines are written when the reader continues."""
        os.mkfifo(self.path)
        self.assertRaises(OSError, self.file.open)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.file.open()
        line = "x" * 1023 + "\n"
        for _ in range(500):
            self.file.write(line)
            self.file.flush()
        # The pipe is full: the lines are buffered, and nothing has blocked.
        self.assertEqual((self.file.dropped_lines, self.messages), (0, []))
        data = b""
        while len(data) < 500 * 1024:
            data += os.read(reader, 1 << 20)
            self.file.flush()
        self.assertEqual(data, line.encode() * 500)
        os.close(reader)
        self.file.write(line)
        self.file.flush()
        self.assertIn("broken pipe", self.messages[-1])

    def test_pipe_without_reads(self) -> None:
        """Lines that exceed buffer and pipe are dropped, which is logged once."""
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.file.open()
        for _ in range(3000):
            self.file.write("x" * 1023 + "\n")
        self.assertGreater(self.file.dropped_lines, 1000)
        self.assertEqual(len(self.messages), 1)
        self.assertIn("pipe full", self.messages[0])

    def test_stdout(self) -> None:
        """ "-" is stdout, which stays blocking and is not closed by rotation."""
        script = (
            "import sys; from balancebeam.observability.log_file import LogFile\n"
            "file = LogFile('-'); file.open(); file.write('one\\n'); file.reopen()\n"
            "file.write('x' * 100 + '\\n'); file.close()\n"
            "import os; print(os.get_blocking(1))\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
        )
        self.assertEqual(result.stdout, b"one\n" + 100 * b"x" + b"\nTrue\n")


# The real function, for `restore_writes`.
WRITE = os.write
