"""
The state file: loading, quarantine of damaged files, and atomic writes in a thread.

`load_state` never raises: a damaged file is renamed, and the balancer starts
without saved state. `write_state` replaces the file as a whole. `StateFile`
serializes the writes of one process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.errors import describe_os_error
from balancebeam.state.codec import State, decode_state

# Bytes. The state of 60 000 servers is smaller, so a larger file is not a state file.
MAX_FILE_SIZE = 16 * 1024 * 1024

# Damaged files that are kept; an administrator has to look at them before there are more.
MAX_QUARANTINED_FILES = 10

_log = Logger()


def load_state(path: str) -> State | None:
    """
    Load the state file at `path`.

    A file with other content is renamed to `PATH.bad`, or `PATH.bad-1` and so
    on (of a symbolic link: its target). That, and a file that cannot be read or
    renamed, is logged as a warning. Never raises.

    Returns:
        The state; `None` if there is no file, or none that can be used.
    """
    try:
        target = os.path.realpath(path)
        data = _read_file(target)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warn(
            "state file {path!r} not read: {reason}; continuing without saved state",
            path=path,
            reason=describe_os_error(error),
        )
        return None
    try:
        if len(data) > MAX_FILE_SIZE:
            raise ValueError(f"larger than {MAX_FILE_SIZE} bytes")
        return decode_state(data)
    except ValueError as error:
        _reject_file(path, str(error), target)
        return None


def _read_file(path: str) -> bytes:
    """Return the content of the file at `path`, at most `MAX_FILE_SIZE` + 1 bytes."""
    # Without O_NONBLOCK, opening a named pipe blocks until it has a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_SIZE + 1)
    finally:
        os.close(descriptor)


def _reject_file(path: str, reason: str, target: str) -> None:
    """Rename the damaged file at `target`, to which `path` resolves, and log the reason."""
    try:
        quarantine_path = _quarantine(target)
    except OSError as error:
        _log.warn(
            "state file {path!r} ignored: {reason}; it will be overwritten, because it cannot be "
            "renamed: {error}",
            path=path,
            reason=reason,
            error=describe_os_error(error),
        )
    else:
        _log.warn(
            "state file {path!r} ignored: {reason}; renamed to {quarantine_path!r}",
            path=path,
            reason=reason,
            quarantine_path=quarantine_path,
        )


def _quarantine(path: str) -> str:
    """Rename the file at `path`, and return its new name. Raises `OSError`."""
    for number in range(MAX_QUARANTINED_FILES):
        quarantine_path = f"{path}.bad-{number}" if number else f"{path}.bad"
        # rename() replaces an existing file, so the name is reserved with O_EXCL first.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            os.close(os.open(quarantine_path, flags, 0o600))
        except FileExistsError:
            continue
        try:
            os.rename(path, quarantine_path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(quarantine_path)
            raise
        return quarantine_path
    raise OSError(errno.EEXIST, f"there are {MAX_QUARANTINED_FILES} such files already")


def write_state(path: str, data: bytes) -> None:
    """
    Replace the content of the file at `path` with `data`, atomically and durably.

    A reader, and a restart after a crash of the process or of the machine, finds
    the old or the new content, never a mixture. Only one process may write to
    the file. A symbolic link stays, and its target is replaced.

    Raises:
        OSError: The old content is still there, unless only the fsync of the
            directory failed.
    """
    if len(data) > MAX_FILE_SIZE:
        raise OSError(errno.EFBIG, f"state larger than {MAX_FILE_SIZE} bytes")
    target = os.path.realpath(path)
    mode = _file_mode(target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _replace_file(target, data, mode)
        _fsync_directory(directory)
    finally:
        os.close(directory)


def _file_mode(path: str) -> int:
    """Return the permissions of the file at `path`; 0600 if it does not exist."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0o600
    if not stat.S_ISREG(mode):
        # rename() would replace a device or a pipe as well.
        raise OSError(errno.EINVAL, "not a regular file", path)
    return stat.S_IMODE(mode) & 0o777


def _replace_file(path: str, data: bytes, mode: int) -> None:
    """Write `data` to `PATH.new`, and rename it to `path`. Raises `OSError`."""
    new = path + ".new"
    # Left by a killed process, or planted as a link by another user.
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
        # Do not leave a partial file: it may be what fills the disk.
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
        # Some file systems do not implement fsync for directories.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


class StateFile:
    """
    Writes the state file in a thread, one write at a time.

    While a write is in progress only the newest state is queued: the state that
    it replaces is never written.
    """

    def __init__(self, path: str, defer_to_thread: Callable[..., Deferred[None]]) -> None:
        """
        Create the writer; no file is touched.

        Args:
            path: The state file.
            defer_to_thread: `twisted.internet.threads.deferToThread` or the same for
                another thread pool, which has to run until `flush` has fired.
        """
        self._path = path
        self._defer_to_thread = defer_to_thread
        self._writing = False
        self._pending_data: bytes | None = None
        self._save_waiters: list[Deferred[None]] = []
        self._flush_waiters: list[Deferred[None]] = []

    @property
    def has_pending_writes(self) -> bool:
        """Whether a write is in progress or queued."""
        return self._writing or self._pending_data is not None

    def schedule(self, data: bytes) -> None:
        """Write `data`, or newer state, as soon as possible. A failure is logged."""
        self._pending_data = data
        if not self._writing:
            self._write()

    def save(self, data: bytes) -> Deferred[None]:
        """
        Schedule a write of `data`, and report its result.

        Returns:
            A Deferred that fires when `data`, or newer state, is durable, and fails
            with `OSError` if it could not be written. Callers must add an errback,
            or use `schedule`.
        """
        waiter: Deferred[None] = Deferred()
        self._save_waiters.append(waiter)
        self.schedule(data)
        return waiter

    def flush(self) -> Deferred[None]:
        """Return a Deferred that fires when no write is in progress or queued. It never fails."""
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
        error = failure.value
        if isinstance(error, OSError):
            _log.error(
                "state file {path!r} not written: {reason}; "
                "changes since the last write will not survive a restart",
                path=self._path,
                reason=describe_os_error(error),
            )
        else:
            _log.failure("state file {path!r} not written", failure, path=self._path)
        for waiter in waiters:
            waiter.errback(failure)

    def _write_done(self) -> None:
        # After the callbacks, which may have scheduled newer state.
        self._writing = False
        if self._pending_data is not None:
            self._write()
        else:
            self._notify_flush_waiters()

    def _notify_flush_waiters(self) -> None:
        while self._flush_waiters and not self.has_pending_writes:
            self._flush_waiters.pop(0).callback(None)
