"""A file that lines are added to, and that never makes anybody wait."""

from __future__ import annotations

from twisted.logger import Logger

from balancebeam.observability.nonblocking_file import STDOUT, UNREAD, Outlet, in_words

# Octets that are written as soon as they have come together.
BATCH = 64 * 1024

# Octets that are kept for a file that does not take them.
MOST_KEPT = 1024 * 1024


class LogFile:
    """
    Adds lines to the file at `path`, or to stdout if that is "-".

    Lines are collected until `flush`, or until there are `BATCH` octets. What
    the file does not take is kept for the next time, and beyond `MOST_KEPT`
    octets new lines are `lost`: nothing but `open` raises, or waits. The log
    is told when that begins, and when it is over.

    A line for a file that is closed, from a request that outlived its
    frontend, has it opened for just this line.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost = 0
        self._outlet: Outlet | None = None
        self._lines: list[str] = []
        # Octets of all that is collected, and with how many something is to be done.
        self._octets = 0
        self._enough = 0
        # What was to be written, but was not taken; it may begin within a line.
        self._left = b""
        self._torn = False
        # Why it is not taken, and whether the log was told.
        self._trouble = ""
        self._told = False
        self._lost_before = 0

    @property
    def is_open(self) -> bool:
        """Whether lines are collected for it."""
        return self._outlet is not None

    def open(self) -> None:
        """Open it if it is not. Raises `OSError`."""
        if self._outlet is None:
            self._use(Outlet(self.path))

    def reopen(self) -> None:
        """Go on with what is at the path by now; if that cannot be had, as before."""
        if self._outlet is None or self.path == STDOUT:
            return
        self.flush()
        try:
            outlet = Outlet(self.path)
        except (OSError, ValueError) as error:
            self._log.error(
                "{path} cannot be opened anew, and lines go to where they went: {why}",
                path=self.path,
                why=in_words(error),
            )
            return
        self._drop_torn_line()
        self._outlet.close()
        self._use(outlet)

    def close(self) -> None:
        """Write what there is, and close it."""
        if self._outlet is None:
            return
        self.flush()
        self._drop_torn_line()
        self._lose(self._left.count(b"\n"))
        if self._told:
            lost = self.lost - self._lost_before
            self._log.error("{path} is closed; {lost} lines were lost", path=self.path, lost=lost)
        self._left = b""
        self._octets = self._enough = 0
        self._outlet.close()
        self._outlet = None

    def write(self, line: str) -> None:
        """Add `line`, which ends with a line feed, sooner or later."""
        self._lines.append(line)
        self._octets += len(line)
        if self._octets >= self._enough:
            self._be_full()

    def flush(self) -> None:
        """Write what has come together, as far as that goes without waiting."""
        if self._outlet is None or not self._octets:
            return
        data = self._left + "".join(self._lines).encode("ascii", "backslashreplace")
        self._lines.clear()
        written, why = self._outlet.write(data)
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        self._left = data[written:]
        self._octets = len(self._left)
        if why:
            self._trouble = why
            self._enough = MOST_KEPT
            if why != UNREAD:
                self._tell()
        elif self._trouble:
            self._recover()

    def _use(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._enough = MOST_KEPT if self._trouble else BATCH

    def _drop_torn_line(self) -> None:
        """Forget the end of a line whose beginning is in a file that is left."""
        if self._torn:
            self._left = self._left.partition(b"\n")[2]
            self._octets = len(self._left)
            self._torn = False
            self._lose(1)

    def _be_full(self) -> None:
        if self._outlet is None:
            self._write_late()
        elif not self._trouble:
            self.flush()
        else:
            self._octets -= len(self._lines.pop())
            self._lose(1)

    def _write_late(self) -> None:
        try:
            self.open()
        except (OSError, ValueError) as error:
            self._trouble = in_words(error)
            self._lose(len(self._lines))
            self._lines.clear()
            self._octets = 0
        else:
            self.close()

    # What the log is told.

    def _lose(self, lines: int) -> None:
        if lines:
            self.lost += lines
            self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._log.error(
                "{path} cannot be written, and lines are lost: {why}",
                path=self.path,
                why=self._trouble,
            )

    def _recover(self) -> None:
        self._trouble = ""
        self._enough = BATCH
        if self._told:
            self._told = False
            lost = self.lost - self._lost_before
            self._log.info(
                "{path} is written again; {lost} lines were lost", path=self.path, lost=lost
            )
        self._lost_before = self.lost
