"""The state file: loading, quarantine, atomic writes, crash safety."""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import UnixAddress
from balancebeam.state import store
from balancebeam.state.codec import ServerState, State, encode_state
from balancebeam.state.store import StateFile, load_state, write_state

# Seconds for the writer process to exit.
EXIT_TIMEOUT = 20.0


def numbered_state(number: int) -> State:
    """A state that is identified by `number`, and takes more than a page."""
    others = tuple(ServerState(UnixAddress(f"/other/{n}")) for n in range(50))
    return State({"p": (ServerState(UnixAddress(f"/{number}")), *others)})


class StateStoreTestCase(SynchronousTestCase):
    """A temporary directory, and the path of a state file that does not exist yet."""

    def setUp(self) -> None:
        self.folder = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.path_of("state")

    def path_of(self, name: str) -> str:
        """The path of `name` in the directory."""
        return os.path.join(self.folder, name)

    def write_file(self, data: bytes, name: str = "state") -> None:
        """Write `data` to the file called `name`."""
        with open(self.path_of(name), "wb") as file:
            file.write(data)

    def read_file(self, name: str = "state") -> bytes:
        """The content of the file called `name`."""
        with open(self.path_of(name), "rb") as file:
            return file.read()

    def file_names(self) -> list[str]:
        """The names in the directory, sorted."""
        return sorted(os.listdir(self.folder))

    def load(self, path: str | None = None) -> tuple[State | None, list[str]]:
        """The loaded state, and the warnings that were logged."""
        with capturedLogs() as events:
            state = load_state(self.path if path is None else path)
        self.assertTrue(all(event["log_level"] == LogLevel.warn for event in events))
        return state, [formatEvent(event) for event in events]

    def stored_number(self) -> int:
        """The number of the state in the file, which has to be complete."""
        state, warnings = self.load()
        assert state is not None, warnings
        self.assertEqual(warnings, [])
        address = state.pools["p"][0].address
        assert isinstance(address, UnixAddress)
        number = int(address.path[1:])
        self.assertEqual(state, numbered_state(number))
        return number


class LoadTests(StateStoreTestCase):
    """Loading, and quarantine of damaged files."""

    def test_no_file(self) -> None:
        """Without a file, directory or link target there is no state and no warning."""
        self.assertEqual(self.load(), (None, []))
        self.assertEqual(self.load(self.path_of("no/folder")), (None, []))
        os.symlink(self.path_of("nowhere"), self.path)
        self.assertEqual(self.load(), (None, []))

    def test_state(self) -> None:
        """A valid file is loaded and left in place."""
        self.write_file(encode_state(numbered_state(3)))
        self.assertEqual(self.load(), (numbered_state(3), []))
        self.assertEqual(self.file_names(), ["state"])

    def test_damaged_file_is_quarantined(self) -> None:
        """A damaged file is renamed to `.bad`, which the log names with the reason."""
        damaged = encode_state(numbered_state(3))[:-20]
        self.write_file(damaged)
        state, (warning,) = self.load()
        self.assertIsNone(state)
        self.assertIn(f"state file {self.path!r} ignored: truncated file", warning)
        self.assertIn(f"renamed to {self.path + '.bad'!r}", warning)
        self.assertEqual(self.file_names(), ["state.bad"])
        self.assertEqual(self.read_file("state.bad"), damaged)
        self.assertEqual(self.load(), (None, []))

    def test_quarantined_files_are_kept(self) -> None:
        """No quarantined file is overwritten; when there are ten, the file stays in place."""
        for number in range(store.MAX_QUARANTINED_FILES):
            self.write_file(b"%d" % number)
            self.load()
        self.assertNotIn("state", self.file_names())
        self.write_file(b"last")
        state, (warning,) = self.load()
        self.assertIsNone(state)
        self.assertIn("it will be overwritten, because it cannot be renamed: there are 10", warning)
        self.assertEqual(self.read_file(), b"last")
        self.assertEqual(self.read_file("state.bad"), b"0")
        for number in range(1, store.MAX_QUARANTINED_FILES):
            self.assertEqual(self.read_file(f"state.bad-{number}"), b"%d" % number)
        self.assertEqual(len(self.file_names()), store.MAX_QUARANTINED_FILES + 1)

    def test_damaged_file_that_cannot_be_renamed(self) -> None:
        """A damaged file that cannot be renamed stays, and the log says so."""
        self.write_file(b"foreign")
        with mock.patch("os.rename", side_effect=OSError(errno.EACCES, "Denied")):
            state, (warning,) = self.load()
        self.assertIsNone(state)
        self.assertIn("invalid JSON", warning)
        self.assertIn("it will be overwritten, because it cannot be renamed: denied", warning)
        self.assertEqual(self.file_names(), ["state"])

    def test_target_of_a_link_is_quarantined(self) -> None:
        """Of a symbolic link the target is renamed; a write creates it anew."""
        os.mkdir(self.path_of("there"))
        self.write_file(b"foreign", "there/real")
        os.symlink("there/real", self.path)
        _, (warning,) = self.load()
        self.assertIn(repr(self.path_of("there/real.bad")), warning)
        self.assertTrue(os.path.islink(self.path))
        write_state(self.path, encode_state(numbered_state(1)))
        self.assertEqual(self.stored_number(), 1)

    def test_file_too_large(self) -> None:
        """A file over the size limit is quarantined, and none is written."""
        self.write_file(b"")
        os.truncate(self.path, store.MAX_FILE_SIZE + 1)
        _, (warning,) = self.load()
        self.assertIn("larger than", warning)
        self.assertEqual(self.file_names(), ["state.bad"])
        error = self.assertRaises(OSError, write_state, self.path, bytes(store.MAX_FILE_SIZE + 1))
        self.assertEqual(error.errno, errno.EFBIG)

    def test_unreadable_files_stay(self) -> None:
        """Paths that cannot be read as a file cause a warning and stay as they are."""
        os.mkdir(self.path_of("folder"))
        os.mkfifo(self.path_of("pipe"))
        os.symlink("loop", self.path_of("loop"))
        self.write_file(b"")
        before = self.file_names()
        for path, reason in (
            (self.path_of("folder"), "regular file"),
            (self.path_of("pipe"), "not a regular file"),
            (self.path_of("loop"), "symbolic link"),
            (self.path_of("state/below"), "not a directory"),
            ("/dev/zero", "not a regular file"),
            ("", "regular file"),
            ("a\0b", "null"),
        ):
            state, (warning,) = self.load(path)
            self.assertIsNone(state)
            self.assertIn(f"state file {path!r} not read", warning)
            self.assertIn(reason, warning)
        self.assertEqual(self.file_names(), before)

    def test_no_permission(self) -> None:
        """A file that may not be read causes a warning and stays."""
        self.write_file(b"secret")
        with mock.patch("os.open", side_effect=PermissionError(errno.EACCES, "Denied")):
            state, (warning,) = self.load()
        self.assertIsNone(state)
        self.assertIn("not read: denied", warning)
        self.assertEqual(self.file_names(), ["state"])


class SaveTests(StateStoreTestCase):
    """Atomic writes, successful and failed."""

    def permissions(self) -> int:
        """The permissions of the state file."""
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def test_new_file(self) -> None:
        """A new file has mode 0600, whatever the umask."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        write_state(self.path, b"data")
        self.assertEqual(self.read_file(), b"data")
        self.assertEqual(self.permissions(), 0o600)
        self.assertEqual(self.file_names(), ["state"])

    def test_mode_is_kept(self) -> None:
        """A write keeps the mode of the file, even of a read-only one."""
        self.write_file(b"old")
        for mode in (0o640, 0o444, 0o600):
            os.chmod(self.path, mode)
            write_state(self.path, b"data")
            self.assertEqual(self.permissions(), mode)

    def test_empty_data(self) -> None:
        """Empty data can be written."""
        write_state(self.path, b"")
        self.assertEqual(self.read_file(), b"")

    def test_relative_path(self) -> None:
        """A path without a directory is relative to the working directory."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        write_state("state", b"data")
        self.assertEqual(self.read_file(), b"data")

    def test_link_is_kept(self) -> None:
        """A write replaces the target of a symbolic link, not the link."""
        os.mkdir(self.path_of("there"))
        os.symlink("there/real", self.path)
        for data in (b"one", b"two"):
            write_state(self.path, data)
            self.assertEqual(os.readlink(self.path), "there/real")
            self.assertEqual(self.read_file("there/real"), data)
        self.assertEqual(os.listdir(self.path_of("there")), ["real"])

    def test_leftover_of_a_killed_process(self) -> None:
        """A `.new` file of an interrupted write is replaced."""
        self.write_file(b"longer than the new content", "state.new")
        os.chmod(self.path_of("state.new"), 0o400)
        write_state(self.path, b"data")
        self.assertEqual(self.read_file(), b"data")
        self.assertEqual(self.permissions(), 0o600)
        self.assertEqual(self.file_names(), ["state"])

    def test_planted_link_is_not_followed(self) -> None:
        """A link or pipe in the place of the `.new` file is not written to."""
        self.write_file(b"precious", "other")
        for link in (os.symlink, os.link):
            link(self.path_of("other"), self.path_of("state.new"))
            write_state(self.path, b"data")
            self.assertEqual(self.read_file("other"), b"precious")
            self.assertFalse(os.path.islink(self.path))
        os.mkfifo(self.path_of("state.new"))
        write_state(self.path, b"data")
        self.assertEqual(self.file_names(), ["other", "state"])

    def test_only_regular_files_are_replaced(self) -> None:
        """A directory, pipe or link loop is an error and stays as it is."""
        os.mkdir(self.path_of("folder"))
        os.mkfifo(self.path_of("pipe"))
        os.symlink("loop", self.path_of("loop"))
        os.symlink("pipe", self.path_of("link"))
        before = self.file_names()
        for name in ("folder", "pipe", "loop", "link", "no/folder"):
            self.assertRaises(OSError, write_state, self.path_of(name), b"data")
        self.assertEqual(self.file_names(), before)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path_of("pipe")).st_mode))

    def test_short_writes(self) -> None:
        """Short writes are continued."""
        real = os.write

        def write_one_byte(descriptor: int, data: Any) -> int:
            """Write the first byte of `data`."""
            return real(descriptor, data[:1])

        with mock.patch("os.write", write_one_byte):
            write_state(self.path, b"several")
        self.assertEqual(self.read_file(), b"several")

    def test_failure_keeps_old_content(self) -> None:
        """After a failure of any system call the old content is there, and nothing else."""
        self.write_file(b"old")
        for name in ("open", "write", "fchmod", "fsync", "rename", "unlink", "lstat"):
            with mock.patch(f"os.{name}", side_effect=OSError(errno.ENOSPC, "Full")):
                error = self.assertRaises(OSError, write_state, self.path, b"new")
            self.assertEqual(error.errno, errno.ENOSPC)
            self.assertEqual(self.read_file(), b"old")
            self.assertEqual(self.file_names(), ["state"])

    def test_fsync_of_directory(self) -> None:
        """EINVAL of the directory's fsync is ignored; other errors are reported."""
        real = os.fsync
        failing = [errno.EINVAL, errno.EIO]

        def fsync(descriptor: int) -> None:
            """Fail for directories."""
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(failing.pop(0), "")
            real(descriptor)

        with mock.patch("os.fsync", fsync):
            write_state(self.path, b"one")
            self.assertRaises(OSError, write_state, self.path, b"two")
        self.assertEqual(failing, [])
        self.assertEqual(self.read_file(), b"two")

    def test_no_descriptor_is_left_open(self) -> None:
        """Neither failed writes nor loads leak a descriptor."""

        def descriptors() -> list[str]:
            """The open file descriptors."""
            return os.listdir("/dev/fd")

        before = len(descriptors())
        self.test_failure_keeps_old_content()
        self.write_file(b"foreign")
        self.load()
        self.load(self.folder)
        self.assertEqual(len(descriptors()), before)


# A process that forks a child for each command, so that imports are not repeated:
#     on NUMBER 0         the child writes states, from NUMBER on, until it is killed
#     once NUMBER FATAL   the child writes one state, and kills itself before the system
#                         call FATAL, or in the middle of it if it is a write
# Its output: "pid PID", the number of each state that was written, "status STATUS".
WRITER = """
import os, signal, sys
from balancebeam.state.store import write_state

path, template = sys.argv[1], sys.stdin.readline().strip()

def data(number):
    return template.replace("NUMBER", str(number)).replace("NEWLINE", "\\n").encode()

def send(text):
    os.write(1, b"%b\\n" % text.encode())

def dying_at(fatal):
    calls = 0

    def dying(name, real):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == fatal:
                if name == "write":
                    real(arguments[0], arguments[1][:len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call

    for name in ("open", "write", "fchmod", "fsync", "rename", "close", "lstat", "unlink"):
        setattr(os, name, dying(name, getattr(os, name)))

for line in sys.stdin:
    command, number, fatal = line.split()
    child = os.fork()
    if not child:
        number = int(number)
        if command == "once":
            block = data(number)
            dying_at(int(fatal))
            write_state(path, block)
            os._exit(0)
        while True:
            write_state(path, data(number))
            send(str(number))
            number += 1
    send(f"pid {child}")
    send(f"status {os.waitpid(child, 0)[1]}")
"""


class CrashSafetyTests(StateStoreTestCase):
    """The file after SIGKILL in the middle of writes."""

    def setUp(self) -> None:
        super().setUp()
        self.writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            bufsize=1,
        )
        self.addCleanup(self.stop_writer)
        template = encode_state(numbered_state(0)).decode().replace('unix:/0"', 'unix:/NUMBER"')
        self.send_line(template.replace("\n", "NEWLINE"))

    def stop_writer(self) -> None:
        """Stop the writer process, which exits when its input ends."""
        self.writer.communicate(timeout=EXIT_TIMEOUT)
        self.assertEqual(self.writer.returncode, 0)

    def send_line(self, line: str) -> None:
        """Send a line to the writer process."""
        assert self.writer.stdin is not None
        self.writer.stdin.write(line + "\n")

    def receive(self, word: str, numbers: list[int]) -> int:
        """The number after `word`; numbers of written states before it are collected."""
        assert self.writer.stdout is not None
        while True:
            line = self.writer.stdout.readline()
            prefix, _, rest = line.rpartition(" ")
            if prefix == word:
                return int(rest)
            numbers.append(int(line))

    def test_kill_at_random_times(self) -> None:
        """Killed at a random time, the process leaves the last state or the next one."""
        rng = random.Random()
        written = [0]
        write_state(self.path, encode_state(numbered_state(0)))
        for _ in range(20):
            before = written[-1]
            self.send_line(f"on {before + 1} 0")
            pid = self.receive("pid", written)
            time.sleep(rng.uniform(0, 0.04))
            # The writer process reaps it.
            os.kill(pid, signal.SIGKILL)
            self.assertEqual(os.WTERMSIG(self.receive("status", written)), signal.SIGKILL)
            number = self.stored_number()
            # It may have been killed between the rename and its message.
            self.assertIn(number, (written[-1], written[-1] + 1))
            self.assertLessEqual(set(self.file_names()), {"state", "state.new"})
            written.append(number)
        self.assertGreater(written[-1], 0)

    def test_kill_at_every_system_call(self) -> None:
        """Killed at any system call, the process leaves the old or the new state."""
        write_state(self.path, encode_state(numbered_state(0)))
        outcomes = []
        for fatal in range(1, 50):
            self.send_line(f"once {fatal} {fatal}")
            self.receive("pid", [])
            status = self.receive("status", [])
            number = self.stored_number()
            if status == 0:
                self.assertEqual(number, fatal)
                break
            self.assertEqual(os.WTERMSIG(status), signal.SIGKILL)
            outcomes.append(number == fatal)
            write_state(self.path, encode_state(numbered_state(0)))
            self.assertEqual(self.file_names(), ["state"])
        # Up to one system call the old state is there; from then on, the new one.
        self.assertEqual(outcomes, sorted(outcomes))
        self.assertGreater(outcomes.count(False), 5)
        self.assertGreater(outcomes.count(True), 0)


class FakeThread:
    """The reactor's thread pool: the test runs the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[None], Callable[[], None], bytes]] = []

    def __call__(self, function: Any, path: str, data: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.calls.append((done, lambda: function(path, data), data))
        return done

    def run_call(self) -> bytes:
        """Run the only pending call, and return its data."""
        ((done, call, data),) = self.calls
        self.calls.clear()
        try:
            call()
        except OSError:
            done.errback()
        else:
            done.callback(None)
        return data


class StateFileTests(StateStoreTestCase):
    """Serialized writes."""

    def setUp(self) -> None:
        super().setUp()
        self.thread = FakeThread()
        self.file = StateFile(self.path, self.thread)
        self.results: list[Any] = []

    def save(self, data: bytes, name: str = "") -> None:
        """Save `data`; record its name in `results` when the write has finished."""
        name = name or data.decode()
        self.file.save(data).addCallbacks(
            lambda _: self.results.append(name),
            lambda failure: self.results.append((name, failure.type)),
        )

    def flush(self) -> None:
        """Flush; record it in `results` when the flush has finished."""
        self.file.flush().addCallback(lambda _: self.results.append("flushed"))

    def run_failing_call(self) -> list[LogEvent]:
        """Run the pending call, which fails; return the logged events."""
        with capturedLogs() as events:
            with mock.patch("os.rename", side_effect=PermissionError(errno.EACCES, "Denied")):
                self.thread.run_call()
        return list(events)

    def test_single_write(self) -> None:
        """A save fires after its write."""
        self.assertFalse(self.file.has_pending_writes)
        self.save(b"one")
        self.assertTrue(self.file.has_pending_writes)
        self.assertEqual(self.file_names(), [])
        self.assertEqual(self.results, [])
        self.thread.run_call()
        self.assertEqual(self.read_file(), b"one")
        self.assertEqual(self.results, ["one"])
        self.assertFalse(self.file.has_pending_writes)
        self.assertEqual(self.thread.calls, [])

    def test_newest_state_is_queued(self) -> None:
        """During a write only the newest state is queued; earlier saves fire with it."""
        for data in (b"one", b"two", b"three", b"four"):
            self.save(data)
        self.assertEqual(self.thread.run_call(), b"one")
        self.assertEqual(self.results, ["one"])
        self.assertTrue(self.file.has_pending_writes)
        self.save(b"five")
        self.assertEqual(self.thread.run_call(), b"four")
        self.assertEqual(self.results, ["one", "two", "three", "four"])
        self.assertEqual(self.thread.run_call(), b"five")
        self.assertEqual(self.results[-1], "five")
        self.assertFalse(self.file.has_pending_writes)

    def test_failed_write(self) -> None:
        """A failure is logged, fails the saves of that write, and queued state follows."""
        for data in (b"one", b"two", b"three"):
            self.save(data)
        self.thread.run_call()
        self.save(b"four")
        self.file.schedule(b"five")
        (event,) = self.run_failing_call()
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertIn(f"state file {self.path!r} not written: denied", formatEvent(event))
        self.assertEqual(
            self.results, ["one", ("two", PermissionError), ("three", PermissionError)]
        )
        self.assertEqual(self.read_file(), b"one")
        self.assertEqual(self.thread.run_call(), b"five")
        self.assertEqual(self.results[3:], ["four"])
        self.assertFalse(self.file.has_pending_writes)

    def test_save_after_a_failure(self) -> None:
        """A save after a failed write is written."""
        self.save(b"one")
        self.run_failing_call()
        self.assertFalse(self.file.has_pending_writes)
        self.save(b"two")
        self.thread.run_call()
        self.assertEqual(self.results, [("one", PermissionError), "two"])
        self.assertEqual(self.read_file(), b"two")

    def test_scheduled_writes(self) -> None:
        """A scheduled write needs no errback; its failure is only logged."""
        # Trial fails a test that leaves an unhandled failure.
        self.file.schedule(b"one")
        self.assertEqual(len(self.run_failing_call()), 1)
        self.file.schedule(b"two")
        self.file.schedule(b"three")
        self.thread.run_call()
        self.thread.run_call()
        self.assertEqual(self.read_file(), b"three")

    def test_save_in_a_callback(self) -> None:
        """State that a callback saves is newer than queued state."""
        self.file.save(b"one").addCallback(lambda _: self.save(b"four"))
        for data in (b"two", b"three"):
            self.save(data)
        self.thread.run_call()
        self.assertEqual(self.thread.run_call(), b"four")
        self.assertEqual(self.results, ["two", "three", "four"])
        self.assertFalse(self.file.has_pending_writes)

    def test_failing_callback(self) -> None:
        """An exception in a callback does not stop later writes."""
        self.file.save(b"one").addCallback(lambda _: 1 / 0)
        self.save(b"one", "other")
        self.thread.run_call()
        self.thread.run_call()
        self.assertEqual(self.results, ["other"])
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled_deferreds(self) -> None:
        """Cancelled saves and flushes do not stop the write."""
        waiter = self.file.save(b"one")
        waiter.addErrback(lambda failure: self.results.append(failure.type))
        flusher = self.file.flush()
        waiter.cancel()
        flusher.addErrback(lambda _: None)
        flusher.cancel()
        self.thread.run_call()
        self.assertEqual(self.results, [CancelledError])
        self.assertFalse(self.file.has_pending_writes)

    def test_flush(self) -> None:
        """A flush fires when no write is in progress or queued."""
        self.flush()
        self.assertEqual(self.results, ["flushed"])
        self.save(b"one")
        self.flush()
        self.save(b"two")
        self.thread.run_call()
        self.assertEqual(self.results[1:], ["one"])
        self.thread.run_call()
        self.assertEqual(self.results[1:], ["one", "two", "flushed"])

    def test_flush_after_a_failure(self) -> None:
        """A flush fires after a failed write too."""
        self.file.schedule(b"one")
        self.flush()
        self.run_failing_call()
        self.assertEqual(self.results, ["flushed"])

    def test_save_in_a_callback_of_flush(self) -> None:
        """State that a callback of a flush saves delays later flushes."""
        self.file.schedule(b"one")
        self.file.flush().addCallback(lambda _: self.save(b"two"))
        self.flush()
        self.thread.run_call()
        self.assertEqual(self.results, [])
        self.thread.run_call()
        self.assertEqual(self.results, ["two", "flushed"])

    def test_no_threads(self) -> None:
        """An error of the thread pool fails the save, is logged, and the flush fires."""

        def fail_to_start(*_: object) -> Deferred[None]:
            """Fail as a stopped thread pool does."""
            raise RuntimeError("no threads")

        self.file = StateFile(self.path, fail_to_start)
        self.save(b"one")
        self.flush()
        self.assertEqual(self.results, [("one", RuntimeError), "flushed"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_synchronous_results(self) -> None:
        """Results that are available at once are handled in order."""
        outcomes = [succeed(None), fail(OSError(errno.ENOSPC, "Full")), succeed(None)]
        self.file = StateFile(self.path, lambda *_: outcomes.pop(0))
        for data in (b"one", b"two", b"three"):
            self.save(data)
        self.flush()
        self.assertEqual(self.results, ["one", ("two", OSError), "three", "flushed"])
