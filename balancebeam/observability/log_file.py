"""A file that lines are added to, and that never makes anybody wait."""

from __future__ import annotations

from twisted.logger import Logger

from balancebeam.observability.nonblocking_file import (
    NO_READER,
    STDOUT,
    NonBlockingFile,
    describe_os_error,
)

# Octets that are written as soon as they have come together.
BATCH_SIZE = 64 * 1024

# Octets that are kept for a file that does not take them.
MAX_BUFFERED = 1024 * 1024


class LogFile:
    """
    Adds lines to the file at `path`, or to stdout if that is "-".

    Lines are collected until `flush`, or until there are `BATCH_SIZE` octets. What
    the file does not take is kept for the next time, and beyond `MAX_BUFFERED`
    octets new lines are `dropped_lines`: nothing but `open` raises, or waits. The log
    is told when that begins, and when it is over.

    A line for a file that is closed, from a request that outlived its
    frontend, has it opened for just this line.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self.path = path
        self.dropped_lines = 0
        self._file: NonBlockingFile | None = None
        self._lines: list[str] = []
        # Octets of all that is collected, and with how many something is to be done.
        self._pending_bytes = 0
        self._flush_threshold = 0
        # What was to be written, but was not taken; it may begin within a line.
        self._unwritten = b""
        self._mid_line = False
        # Why it is not taken, and whether the log was told.
        self._last_error = ""
        self._error_logged = False
        self._dropped_before = 0

    @property
    def is_open(self) -> bool:
        """Whether lines are collected for it."""
        return self._file is not None

    def open(self) -> None:
        """Open it if it is not. Raises `OSError`."""
        if self._file is None:
            self._attach(NonBlockingFile(self.path))

    def reopen(self) -> None:
        """Go on with what is at the path by now; if that cannot be had, as before."""
        if self._file is None or self.path == STDOUT:
            return
        self.flush()
        try:
            outlet = NonBlockingFile(self.path)
        except (OSError, ValueError) as error:
            self._log.error(
                "{path} cannot be opened anew, and lines go to where they went: {reason}",
                path=self.path,
                reason=describe_os_error(error),
            )
            return
        self._drop_partial_line()
        self._file.close()
        self._attach(outlet)

    def close(self) -> None:
        """Write what there is, and close it."""
        if self._file is None:
            return
        self.flush()
        self._drop_partial_line()
        self._count_dropped(self._unwritten.count(b"\n"))
        if self._error_logged:
            lost = self.dropped_lines - self._dropped_before
            self._log.error("{path} is closed; {lost} lines were lost", path=self.path, lost=lost)
        self._unwritten = b""
        self._pending_bytes = self._flush_threshold = 0
        self._file.close()
        self._file = None

    def write(self, line: str) -> None:
        """Add `line`, which ends with a line feed, sooner or later."""
        self._lines.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= self._flush_threshold:
            self._on_full()

    def flush(self) -> None:
        """Write what has come together, as far as that goes without waiting."""
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
            if reason != NO_READER:
                self._log_error()
        elif self._last_error:
            self._recover()

    def _attach(self, outlet: NonBlockingFile) -> None:
        self._file = outlet
        self._flush_threshold = MAX_BUFFERED if self._last_error else BATCH_SIZE

    def _drop_partial_line(self) -> None:
        """Forget the end of a line whose beginning is in a file that is left."""
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

    # What the log is told.

    def _count_dropped(self, lines: int) -> None:
        if lines:
            self.dropped_lines += lines
            self._log_error()

    def _log_error(self) -> None:
        if not self._error_logged:
            self._error_logged = True
            self._log.error(
                "{path} cannot be written, and lines are lost: {reason}",
                path=self.path,
                reason=self._last_error,
            )

    def _recover(self) -> None:
        self._last_error = ""
        self._flush_threshold = BATCH_SIZE
        if self._error_logged:
            self._error_logged = False
            lost = self.dropped_lines - self._dropped_before
            self._log.info(
                "{path} is written again; {lost} lines were lost", path=self.path, lost=lost
            )
        self._dropped_before = self.dropped_lines
