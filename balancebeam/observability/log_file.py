"""
A log file that never blocks: buffers lines, survives full disks and log rotation.

Lines are buffered until `flush`, or until there are `BATCH_SIZE` bytes. What cannot
be written is retried; beyond `MAX_BUFFERED` bytes new lines are dropped and counted.
"""

from __future__ import annotations

from twisted.logger import Logger

from balancebeam.core.errors import describe_os_error
from balancebeam.observability.nonblocking_file import PIPE_FULL, STDOUT, NonBlockingFile

# Bytes that are written without waiting for the next flush: the capacity of a Linux pipe.
BATCH_SIZE = 64 * 1024

# Bytes that are buffered while nothing can be written: a few thousand lines.
MAX_BUFFERED = 1024 * 1024


class LogFile:
    """
    A file, or stdout, to which lines are appended.

    Only `open` raises, and nothing blocks. The first dropped line, or error, and
    the recovery are logged.

    A line that is written after `close` (of a request that outlived its frontend)
    opens the file for this line only.

    Attributes:
        path: The path of the file; "-" for stdout.
        dropped_lines: Lines that could not be written.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self.path = path
        self.dropped_lines = 0
        self._file: NonBlockingFile | None = None
        self._lines: list[str] = []
        # Bytes in `_unwritten` and `_lines`, and at how many `_on_full` is called.
        self._pending_bytes = 0
        self._flush_threshold = 0
        # The rest of an incomplete write, and whether it starts within a line.
        self._unwritten = b""
        self._mid_line = False
        # Why writing fails, "" if it does not, and whether that was logged.
        self._last_error = ""
        self._error_logged = False
        # `dropped_lines` at the last recovery.
        self._dropped_before = 0

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def open(self) -> None:
        """Open the file unless it is open. Raises `OSError`."""
        if self._file is None:
            self._attach(NonBlockingFile(self.path))

    def set_owner(self, uid: int) -> None:
        """Make user `uid` the owner of an open regular file. Raises `OSError`."""
        if self._file is not None and self.path != STDOUT:
            self._file.set_owner(uid)

    def reopen(self) -> None:
        """Open the path again, after log rotation; on failure keep the old file."""
        if self._file is None or self.path == STDOUT:
            return
        self.flush()
        try:
            new_file = NonBlockingFile(self.path)
        except (OSError, ValueError) as error:
            self._log.error(
                "cannot reopen log file {path}: {reason}; still writing to the old file",
                path=self.path,
                reason=describe_os_error(error),
            )
            return
        self._drop_partial_line()
        self._file.close()
        self._attach(new_file)

    def close(self) -> None:
        """Flush and close the file; what cannot be written is dropped."""
        if self._file is None:
            return
        self.flush()
        self._drop_partial_line()
        self._count_dropped(self._unwritten.count(b"\n"))
        if self._error_logged:
            self._log.error(
                "log file {path} closed: {dropped} lines dropped",
                path=self.path,
                dropped=self.dropped_lines - self._dropped_before,
            )
        self._unwritten = b""
        self._pending_bytes = self._flush_threshold = 0
        self._file.close()
        self._file = None

    def write(self, line: str) -> None:
        """Append `line`, which ends with a line feed, at one of the next flushes."""
        self._lines.append(line)
        self._pending_bytes = pending_bytes = self._pending_bytes + len(line)
        if pending_bytes >= self._flush_threshold:
            self._on_full()

    def flush(self) -> None:
        """Write the buffered lines as far as that is possible without blocking."""
        if self._file is None or not self._pending_bytes:
            return
        data = self._unwritten + "".join(self._lines).encode("ascii", "backslashreplace")
        self._lines.clear()
        written, reason = self._file.write(data)
        if written:
            self._mid_line = data[written - 1 : written] != b"\n"
        self._unwritten = data[written:]
        self._pending_bytes = len(self._unwritten)
        if reason:
            self._last_error = reason
            self._flush_threshold = MAX_BUFFERED
            # A slow reader is no error before lines are dropped.
            if reason != PIPE_FULL:
                self._log_error()
        elif self._last_error:
            self._recover()

    def _attach(self, file: NonBlockingFile) -> None:
        self._file = file
        self._flush_threshold = MAX_BUFFERED if self._last_error else BATCH_SIZE

    def _drop_partial_line(self) -> None:
        """Drop the rest of a line whose start is in the old file."""
        if self._mid_line:
            self._unwritten = self._unwritten.partition(b"\n")[2]
            self._pending_bytes = len(self._unwritten)
            self._mid_line = False
            self._count_dropped(1)

    def _on_full(self) -> None:
        if self._file is None:
            self._write_after_close()
        elif not self._last_error:
            self.flush()
        else:
            self._pending_bytes -= len(self._lines.pop())
            self._count_dropped(1)

    def _write_after_close(self) -> None:
        try:
            self.open()
        except (OSError, ValueError) as error:
            self._last_error = describe_os_error(error)
            self._count_dropped(len(self._lines))
            self._lines.clear()
            self._pending_bytes = 0
        else:
            self.close()

    def _count_dropped(self, lines: int) -> None:
        if lines:
            self.dropped_lines += lines
            self._log_error()

    def _log_error(self) -> None:
        if not self._error_logged:
            self._error_logged = True
            self._log.error(
                "cannot write log file {path}: {reason}; "
                "new lines are dropped when the buffer is full",
                path=self.path,
                reason=self._last_error,
            )

    def _recover(self) -> None:
        self._last_error = ""
        self._flush_threshold = BATCH_SIZE
        if self._error_logged:
            self._error_logged = False
            self._log.info(
                "log file {path} writable again: {dropped} lines dropped",
                path=self.path,
                dropped=self.dropped_lines - self._dropped_before,
            )
        self._dropped_before = self.dropped_lines
