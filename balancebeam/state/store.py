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
LARGEST = 16 * 1024 * 1024

# How many files are set aside before somebody has to look at them.
MOST_SET_ASIDE = 10

_log = Logger()


def read_state(path: str) -> State | None:
    """
    The state in the file at `path`; None if there is none, or none of use.

    A file that holds something else (of a symbolic link, its target) gets
    `.bad` behind its name, or `.bad-1` and so on, and the log is told; so it
    is of one that cannot be read or renamed. Nothing is raised.
    """
    try:
        target = os.path.realpath(path)
        data = _read(target)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warn(
            "the state in {path!r} cannot be read, and is not used: {why}",
            path=path,
            why=_explain(error),
        )
        return None
    try:
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} octets")
        return decode_state(data)
    except ValueError as error:
        _report(path, str(error), target)
        return None


def _read(path: str) -> bytes:
    """What the file at `path` holds, or its first `LARGEST` octets and one more."""
    # Opening a named pipe would otherwise wait for who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST + 1)
    finally:
        os.close(descriptor)


def _report(path: str, why: str, target: str) -> None:
    """Set aside the file at `target`, which `path` leads to, and tell the log."""
    try:
        kept = _set_aside(target)
    except OSError as error:
        _log.warn(
            "the state in {path!r} is not used: {why}; it cannot be set aside, and will be "
            "written over: {error}",
            path=path,
            why=why,
            error=_explain(error),
        )
    else:
        _log.warn(
            "the state in {path!r} is not used: {why}; what was there is now {kept!r}",
            path=path,
            why=why,
            kept=kept,
        )


def _set_aside(path: str) -> str:
    """Rename the file at `path`; its new name. Raises `OSError`."""
    for number in range(MOST_SET_ASIDE):
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
    raise OSError(errno.EEXIST, f"there are {MOST_SET_ASIDE} such files already")


def write_state(path: str, data: bytes) -> None:
    """
    Put `data` into the file at `path`: whoever reads it finds the old content
    or the new one, even if this process or the machine is stopped halfway.

    Only one process may write to it. Of a symbolic link, the target is
    written. Raises `OSError`; then it is the old content, unless only the
    folder could not be made durable.
    """
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"the state has more than {LARGEST} octets")
    target = os.path.realpath(path)
    mode = _mode(target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _replace(target, data, mode)
        _sync_folder(folder)
    finally:
        os.close(folder)


def _mode(path: str) -> int:
    """Who may do what with the file at `path`, or shall when there is one."""
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0o600
    if not stat.S_ISREG(found):
        # Renaming would replace a device or a pipe as well.
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return stat.S_IMODE(found) & 0o777


def _replace(path: str, data: bytes, mode: int) -> None:
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


def _sync_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems know no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _explain(error: BaseException | None) -> str:
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
        self._waiting: bytes | None = None
        self._waiters: list[Deferred[None]] = []
        self._flushers: list[Deferred[None]] = []

    @property
    def busy(self) -> bool:
        """Whether something is being written, or waits to be."""
        return self._writing or self._waiting is not None

    def put(self, data: bytes) -> None:
        """Write `data`, or newer, when that can be done. The log is told if it fails."""
        self._waiting = data
        if not self._writing:
            self._write()

    def save(self, data: bytes) -> Deferred[None]:
        """
        Like `put`; fires when `data`, or newer, is there to stay, and fails
        with `OSError` if it is not. Callers must add an errback, or use `put`.
        """
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self.put(data)
        return waiter

    def flush(self) -> Deferred[None]:
        """Fires when nothing is under way any more. Never fails."""
        flusher: Deferred[None] = Deferred()
        self._flushers.append(flusher)
        self._tell_flushers()
        return flusher

    def _write(self) -> None:
        data, self._waiting = self._waiting, None
        waiters, self._waiters = self._waiters, []
        self._writing = True
        done = maybeDeferred(self._defer_to_thread, write_state, self._path, data)
        done.addCallbacks(
            lambda _: self._written(waiters), lambda failure: self._failed(waiters, failure)
        )
        done.addCallback(lambda _: self._go_on())

    def _written(self, waiters: list[Deferred[None]]) -> None:
        for waiter in waiters:
            waiter.callback(None)

    def _failed(self, waiters: list[Deferred[None]], failure: Failure) -> None:
        if failure.check(OSError):
            _log.error(
                "the state could not be written to {path!r}: {why}",
                path=self._path,
                why=_explain(failure.value),
            )
        else:
            _log.failure("the state could not be written to {path!r}", failure, path=self._path)
        for waiter in waiters:
            waiter.errback(failure)

    def _go_on(self) -> None:
        # Only now, as those who were told may have come with newer state.
        self._writing = False
        if self._waiting is not None:
            self._write()
        else:
            self._tell_flushers()

    def _tell_flushers(self) -> None:
        while self._flushers and not self.busy:
            self._flushers.pop(0).callback(None)
