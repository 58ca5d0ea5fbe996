"""The file in which state outlives the program."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.state.codec import State, decode_state

# Octets. A file with more was not written here: 60 000 servers take less.
MAX_FILE_SIZE = 16 * 1024 * 1024

# How many files are set aside before somebody has to look at them.
MAX_QUARANTINED_FILES = 10

_log = Logger()


def load_state(path: str) -> State | None:
    """
    The state in the file at `path`; None if there is none, or none of use.

    A file that holds something else (of a symbolic link, its target) gets
    `.bad` behind its name, or `.bad-1` and so on, and the log is told; so it
    is of one that cannot be read or renamed. Nothing is raised.
    """
    try:
        target = os.path.realpath(path)
        data = _read_file(target)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warn(
            "the state in {path!r} cannot be read, and is not used: {reason}",
            path=path,
            reason=_describe_error(error),
        )
        return None
    try:
        if len(data) > MAX_FILE_SIZE:
            raise ValueError(f"it has more than {MAX_FILE_SIZE} octets")
        return decode_state(data)
    except ValueError as error:
        _reject_file(path, str(error), target)
        return None


def _read_file(path: str) -> bytes:
    """What the file at `path` holds, or its first `MAX_FILE_SIZE` octets and one more."""
    # Opening a named pipe would otherwise wait for who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_SIZE + 1)
    finally:
        os.close(descriptor)


def _reject_file(path: str, reason: str, target: str) -> None:
    """Set aside the file at `target`, which `path` leads to, and tell the log."""
    try:
        kept = _quarantine(target)
    except OSError as error:
        _log.warn(
            "the state in {path!r} is not used: {reason}; it cannot be set aside, and will be "
            "written over: {error}",
            path=path,
            reason=reason,
            error=_describe_error(error),
        )
    else:
        _log.warn(
            "the state in {path!r} is not used: {reason}; what was there is now {kept!r}",
            path=path,
            reason=reason,
            kept=kept,
        )


def _quarantine(path: str) -> str:
    """Rename the file at `path`; its new name. Raises `OSError`."""
    for number in range(MAX_QUARANTINED_FILES):
        kept = f"{path}.bad-{number}" if number else f"{path}.bad"
        # Renaming replaces what is there, so the name is taken first.
        try:
            os.close(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            continue
        try:
            os.rename(path, kept)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(kept)
            raise
        return kept
    raise OSError(errno.EEXIST, f"there are {MAX_QUARANTINED_FILES} such files already")


def write_state(path: str, data: bytes) -> None:
    """
    Put `data` into the file at `path`: whoever reads it finds the old content
    or the new one, even if this process or the machine is stopped halfway.

    Only one process may write to it. Of a symbolic link, the target is
    written. Raises `OSError`; then it is the old content, unless only the
    folder could not be made durable.
    """
    if len(data) > MAX_FILE_SIZE:
        raise OSError(errno.EFBIG, f"the state has more than {MAX_FILE_SIZE} octets")
    target = os.path.realpath(path)
    mode = _file_mode(target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _replace_file(target, data, mode)
        _fsync_directory(folder)
    finally:
        os.close(folder)


def _file_mode(path: str) -> int:
    """Who may do what with the file at `path`, or shall when there is one."""
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0o600
    if not stat.S_ISREG(found):
        # Renaming would replace a device or a pipe as well.
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return stat.S_IMODE(found) & 0o777


def _replace_file(path: str, data: bytes, mode: int) -> None:
    new = path + ".new"
    # One that a killed write left behind, or that somebody else planted.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    try:
        try:
            _write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(new, path)
    except BaseException:
        # It may be what fills the disk.
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _fsync_directory(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems know no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _describe_error(error: BaseException | None) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


class StateFile:
    """
    Writes state away from the reactor's thread, one write at a time.

    `defer_to_thread` is `twisted.internet.threads.deferToThread`, whose thread
    pool has to run until `flush` has fired. While a write is under way only
    the newest state waits; what it replaced is never written.
    """

    def __init__(self, path: str, defer_to_thread: Callable[..., Deferred[None]]) -> None:
        self._path = path
        self._defer_to_thread = defer_to_thread
        self._writing = False
        self._pending_data: bytes | None = None
        self._save_waiters: list[Deferred[None]] = []
        self._flush_waiters: list[Deferred[None]] = []

    @property
    def has_pending_writes(self) -> bool:
        """Whether something is being written, or waits to be."""
        return self._writing or self._pending_data is not None

    def schedule(self, data: bytes) -> None:
        """Write `data`, or newer, when that can be done. The log is told if it fails."""
        self._pending_data = data
        if not self._writing:
            self._write()

    def save(self, data: bytes) -> Deferred[None]:
        """
        Like `schedule`; fires when `data`, or newer, is there to stay, and fails
        with `OSError` if it is not. Callers must add an errback, or use `schedule`.
        """
        waiter: Deferred[None] = Deferred()
        self._save_waiters.append(waiter)
        self.schedule(data)
        return waiter

    def flush(self) -> Deferred[None]:
        """Fires when nothing is under way any more. Never fails."""
        flusher: Deferred[None] = Deferred()
        self._flush_waiters.append(flusher)
        self._notify_flush_waiters()
        return flusher

    def _write(self) -> None:
        data, self._pending_data = self._pending_data, None
        waiters, self._save_waiters = self._save_waiters, []
        self._writing = True
        done = maybeDeferred(self._defer_to_thread, write_state, self._path, data)
        done.addCallbacks(
            lambda _: self._write_succeeded(waiters),
            lambda failure: self._write_failed(waiters, failure),
        )
        done.addCallback(lambda _: self._write_done())

    def _write_succeeded(self, waiters: list[Deferred[None]]) -> None:
        for waiter in waiters:
            waiter.callback(None)

    def _write_failed(self, waiters: list[Deferred[None]], failure: Failure) -> None:
        if failure.check(OSError):
            _log.error(
                "the state could not be written to {path!r}: {reason}",
                path=self._path,
                reason=_describe_error(failure.value),
            )
        else:
            _log.failure("the state could not be written to {path!r}", failure, path=self._path)
        for waiter in waiters:
            waiter.errback(failure)

    def _write_done(self) -> None:
        # Only now, as those who were told may have come with newer state.
        self._writing = False
        if self._pending_data is not None:
            self._write()
        else:
            self._notify_flush_waiters()

    def _notify_flush_waiters(self) -> None:
        while self._flush_waiters and not self.has_pending_writes:
            self._flush_waiters.pop(0).callback(None)
