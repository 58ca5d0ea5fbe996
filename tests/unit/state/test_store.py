"""The file in which state outlives the program, whatever happens to either."""

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
from balancebeam.state import store as state_file
from balancebeam.state.codec import ServerState, State, encode_state
from balancebeam.state.store import StateFile, load_state, write_state

LIMIT = 20.0


def numbered(number: int) -> State:
    """A state that is told from others by its number, and takes more than one page."""
    others = tuple(ServerState(UnixAddress(f"/other/{n}")) for n in range(50))
    return State({"p": (ServerState(UnixAddress(f"/{number}")), *others)})


class StateStoreTestCase(SynchronousTestCase):
    """A folder, and a file in it that is not there yet."""

    def setUp(self) -> None:
        self.folder = os.path.realpath(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.at("state")

    def at(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def put(self, data: bytes, name: str = "state") -> None:
        with open(self.at(name), "wb") as file:
            file.write(data)

    def held(self, name: str = "state") -> bytes:
        with open(self.at(name), "rb") as file:
            return file.read()

    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def read(self, path: str | None = None) -> tuple[State | None, list[str]]:
        """What is read, and the warnings."""
        with capturedLogs() as events:
            state = load_state(self.path if path is None else path)
        self.assertTrue(all(event["log_level"] == LogLevel.warn for event in events))
        return state, [formatEvent(event) for event in events]

    def number(self) -> int:
        """The number of the state in the file, which must be whole."""
        state, warnings = self.read()
        assert state is not None, warnings
        self.assertEqual(warnings, [])
        address = state.pools["p"][0].address
        assert isinstance(address, UnixAddress)
        number = int(address.path[1:])
        self.assertEqual(state, numbered(number))
        return number


class LoadTests(StateStoreTestCase):
    """What is read, and what is set aside."""

    def test_nothing_there(self) -> None:
        self.assertEqual(self.read(), (None, []))
        self.assertEqual(self.read(self.at("no/folder")), (None, []))
        os.symlink(self.at("nowhere"), self.path)
        self.assertEqual(self.read(), (None, []))

    def test_state(self) -> None:
        self.put(encode_state(numbered(3)))
        self.assertEqual(self.read(), (numbered(3), []))
        self.assertEqual(self.names(), ["state"])

    def test_a_torn_file_is_set_aside(self) -> None:
        torn = encode_state(numbered(3))[:-20]
        self.put(torn)
        state, (warning,) = self.read()
        self.assertIsNone(state)
        self.assertIn(f"the state in {self.path!r} is not used: it is cut off", warning)
        self.assertIn(f"now {self.path + '.bad'!r}", warning)
        self.assertEqual(self.names(), ["state.bad"])
        self.assertEqual(self.held("state.bad"), torn)
        self.assertEqual(self.read(), (None, []))

    def test_none_set_aside_is_lost(self) -> None:
        for number in range(state_file.MAX_QUARANTINED_FILES):
            self.put(b"%d" % number)
            self.read()
        self.assertNotIn("state", self.names())
        self.put(b"last")
        state, (warning,) = self.read()
        self.assertIsNone(state)
        self.assertIn("cannot be set aside, and will be written over: there are 10", warning)
        self.assertEqual(self.held(), b"last")
        self.assertEqual(self.held("state.bad"), b"0")
        for number in range(1, state_file.MAX_QUARANTINED_FILES):
            self.assertEqual(self.held(f"state.bad-{number}"), b"%d" % number)
        self.assertEqual(len(self.names()), state_file.MAX_QUARANTINED_FILES + 1)

    def test_a_file_that_cannot_be_renamed(self) -> None:
        self.put(b"foreign")
        with mock.patch("os.rename", side_effect=OSError(errno.EACCES, "Not so")):
            state, (warning,) = self.read()
        self.assertIsNone(state)
        self.assertIn("it is not JSON", warning)
        self.assertIn("cannot be set aside, and will be written over: Not so", warning)
        self.assertEqual(self.names(), ["state"])

    def test_of_a_link_the_target_is_set_aside(self) -> None:
        os.mkdir(self.at("there"))
        self.put(b"foreign", "there/real")
        os.symlink("there/real", self.path)
        _, (warning,) = self.read()
        self.assertIn(repr(self.at("there/real.bad")), warning)
        self.assertTrue(os.path.islink(self.path))
        write_state(self.path, encode_state(numbered(1)))
        self.assertEqual(self.number(), 1)

    def test_a_file_that_is_too_large(self) -> None:
        self.put(b"")
        os.truncate(self.path, state_file.MAX_FILE_SIZE + 1)
        _, (warning,) = self.read()
        self.assertIn("more than", warning)
        self.assertEqual(self.names(), ["state.bad"])
        error = self.assertRaises(
            OSError, write_state, self.path, bytes(state_file.MAX_FILE_SIZE + 1)
        )
        self.assertEqual(error.errno, errno.EFBIG)

    def test_what_cannot_be_read_is_left_alone(self) -> None:
        os.mkdir(self.at("folder"))
        os.mkfifo(self.at("pipe"))
        os.symlink("loop", self.at("loop"))
        self.put(b"")
        before = self.names()
        for path, why in (
            (self.at("folder"), "regular file"),
            (self.at("pipe"), "it is no regular file"),
            (self.at("loop"), "symbolic link"),
            (self.at("state/below"), "Not a directory"),
            ("/dev/zero", "it is no regular file"),
            ("", "regular file"),
            ("a\0b", "null"),
        ):
            state, (warning,) = self.read(path)
            self.assertIsNone(state)
            self.assertIn(f"the state in {path!r} cannot be read, and is not used", warning)
            self.assertIn(why, warning)
        self.assertEqual(self.names(), before)

    def test_no_permission(self) -> None:
        self.put(b"secret")
        with mock.patch("os.open", side_effect=PermissionError(errno.EACCES, "Keep out")):
            state, (warning,) = self.read()
        self.assertIsNone(state)
        self.assertIn("cannot be read, and is not used: Keep out", warning)
        self.assertEqual(self.names(), ["state"])


class SaveTests(StateStoreTestCase):
    """What is there after a write, and after one that failed."""

    def mode(self) -> int:
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def test_a_new_file(self) -> None:
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        write_state(self.path, b"data")
        self.assertEqual(self.held(), b"data")
        self.assertEqual(self.mode(), 0o600)
        self.assertEqual(self.names(), ["state"])

    def test_the_mode_stays(self) -> None:
        self.put(b"old")
        for mode in (0o640, 0o444, 0o600):
            os.chmod(self.path, mode)
            write_state(self.path, b"data")
            self.assertEqual(self.mode(), mode)

    def test_nothing_is_a_state_too(self) -> None:
        write_state(self.path, b"")
        self.assertEqual(self.held(), b"")

    def test_in_the_folder_one_is_in(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        write_state("state", b"data")
        self.assertEqual(self.held(), b"data")

    def test_a_link_survives(self) -> None:
        os.mkdir(self.at("there"))
        os.symlink("there/real", self.path)
        for data in (b"one", b"two"):
            write_state(self.path, data)
            self.assertEqual(os.readlink(self.path), "there/real")
            self.assertEqual(self.held("there/real"), data)
        self.assertEqual(os.listdir(self.at("there")), ["real"])

    def test_what_a_killed_write_left_behind(self) -> None:
        self.put(b"a longer one than what comes", "state.new")
        os.chmod(self.at("state.new"), 0o400)
        write_state(self.path, b"data")
        self.assertEqual(self.held(), b"data")
        self.assertEqual(self.mode(), 0o600)
        self.assertEqual(self.names(), ["state"])

    def test_what_was_planted_is_not_written_to(self) -> None:
        self.put(b"precious", "other")
        for plant in (os.symlink, os.link):
            plant(self.at("other"), self.at("state.new"))
            write_state(self.path, b"data")
            self.assertEqual(self.held("other"), b"precious")
            self.assertFalse(os.path.islink(self.path))
        os.mkfifo(self.at("state.new"))
        write_state(self.path, b"data")
        self.assertEqual(self.names(), ["other", "state"])

    def test_only_files_are_replaced(self) -> None:
        os.mkdir(self.at("folder"))
        os.mkfifo(self.at("pipe"))
        os.symlink("loop", self.at("loop"))
        os.symlink("pipe", self.at("link"))
        before = self.names()
        for name in ("folder", "pipe", "loop", "link", "no/folder"):
            self.assertRaises(OSError, write_state, self.at(name), b"data")
        self.assertEqual(self.names(), before)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.at("pipe")).st_mode))

    def test_a_write_that_takes_several_calls(self) -> None:
        real = os.write

        def one(descriptor: int, data: Any) -> int:
            return real(descriptor, data[:1])

        with mock.patch("os.write", one):
            write_state(self.path, b"several")
        self.assertEqual(self.held(), b"several")

    def test_failures_leave_what_was_there(self) -> None:
        self.put(b"old")
        for name in ("open", "write", "fchmod", "fsync", "rename", "unlink", "lstat"):
            with mock.patch(f"os.{name}", side_effect=OSError(errno.ENOSPC, "Full")):
                error = self.assertRaises(OSError, write_state, self.path, b"new")
            self.assertEqual(error.errno, errno.ENOSPC)
            self.assertEqual(self.held(), b"old")
            self.assertEqual(self.names(), ["state"])

    def test_a_folder_that_cannot_be_made_durable(self) -> None:
        real = os.fsync
        failing = [errno.EINVAL, errno.EIO]

        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(failing.pop(0), "")
            real(descriptor)

        with mock.patch("os.fsync", fsync):
            write_state(self.path, b"one")
            self.assertRaises(OSError, write_state, self.path, b"two")
        self.assertEqual(failing, [])
        self.assertEqual(self.held(), b"two")

    def test_no_descriptor_is_left_open(self) -> None:
        def descriptors() -> list[str]:
            return os.listdir("/dev/fd")

        before = len(descriptors())
        self.test_failures_leave_what_was_there()
        self.put(b"foreign")
        self.read()
        self.read(self.folder)
        self.assertEqual(len(descriptors()), before)


# Imports once, and then has a child write for each line it is sent: state after
# state from a number on, or one, of which it dies before or in the middle of
# the given system call. What it says are the child's pid, then the number of
# each state that is written, and an empty line when the child is dead.
NURSERY = """
import os, signal, sys
from balancebeam.state.store import write_state

path, template = sys.argv[1], sys.stdin.readline().strip()

def data(number):
    return template.replace("NUMBER", str(number)).replace("NEWLINE", "\\n").encode()

def tell(text):
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
            tell(str(number))
            number += 1
    tell(f"pid {child}")
    tell(f"status {os.waitpid(child, 0)[1]}")
"""


class CrashSafetyTests(StateStoreTestCase):
    """What a process leaves behind that SIGKILL ends while it writes."""

    def setUp(self) -> None:
        super().setUp()
        self.nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            bufsize=1,
        )
        self.addCleanup(self.end)
        template = encode_state(numbered(0)).decode().replace('unix:/0"', 'unix:/NUMBER"')
        self.tell(template.replace("\n", "NEWLINE"))

    def end(self) -> None:
        # It ends when its input does.
        self.nursery.communicate(timeout=LIMIT)
        self.assertEqual(self.nursery.returncode, 0)

    def tell(self, line: str) -> None:
        assert self.nursery.stdin is not None
        self.nursery.stdin.write(line + "\n")

    def hear(self, word: str, numbers: list[int]) -> int:
        """The number behind `word`, which comes next but for numbers of what was written."""
        assert self.nursery.stdout is not None
        while True:
            line = self.nursery.stdout.readline()
            found, _, rest = line.rpartition(" ")
            if found == word:
                return int(rest)
            numbers.append(int(line))

    def test_at_any_moment(self) -> None:
        chance = random.Random()
        written = [0]
        write_state(self.path, encode_state(numbered(0)))
        for _ in range(20):
            before = written[-1]
            self.tell(f"on {before + 1} 0")
            pid = self.hear("pid", written)
            time.sleep(chance.uniform(0, 0.04))
            # It is the nursery that waits for it, after this.
            os.kill(pid, signal.SIGKILL)
            self.assertEqual(os.WTERMSIG(self.hear("status", written)), signal.SIGKILL)
            number = self.number()
            # It may have been killed before it could say that it was done.
            self.assertIn(number, (written[-1], written[-1] + 1))
            self.assertLessEqual(set(self.names()), {"state", "state.new"})
            written.append(number)
        self.assertGreater(written[-1], 0)

    def test_at_every_step(self) -> None:
        write_state(self.path, encode_state(numbered(0)))
        outcomes = []
        for fatal in range(1, 50):
            self.tell(f"once {fatal} {fatal}")
            self.hear("pid", [])
            status = self.hear("status", [])
            number = self.number()
            if status == 0:
                self.assertEqual(number, fatal)
                break
            self.assertEqual(os.WTERMSIG(status), signal.SIGKILL)
            outcomes.append(number == fatal)
            write_state(self.path, encode_state(numbered(0)))
            self.assertEqual(self.names(), ["state"])
        # Up to one step all is as before; from then on, the new state is there.
        self.assertEqual(outcomes, sorted(outcomes))
        self.assertGreater(outcomes.count(False), 5)
        self.assertGreater(outcomes.count(True), 0)


class FakeThread:
    """Stands for the reactor's threads: a call is made when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[None], Callable[[], None], bytes]] = []

    def __call__(self, function: Any, path: str, data: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.calls.append((done, lambda: function(path, data), data))
        return done

    def run(self) -> bytes:
        """Make the only call that there is; what was to be written."""
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
    """One write at a time, and no more of them than needed."""

    def setUp(self) -> None:
        super().setUp()
        self.thread = FakeThread()
        self.file = StateFile(self.path, self.thread)
        self.told: list[Any] = []

    def save(self, data: bytes, name: str = "") -> None:
        name = name or data.decode()
        self.file.save(data).addCallbacks(
            lambda _: self.told.append(name),
            lambda failure: self.told.append((name, failure.type)),
        )

    def flush(self) -> None:
        self.file.flush().addCallback(lambda _: self.told.append("flushed"))

    def run_failing(self) -> list[LogEvent]:
        """Make the call, which fails; what the log is told."""
        with capturedLogs() as events:
            with mock.patch("os.rename", side_effect=PermissionError(errno.EACCES, "Not so")):
                self.thread.run()
        return list(events)

    def test_one(self) -> None:
        self.assertFalse(self.file.has_pending_writes)
        self.save(b"one")
        self.assertTrue(self.file.has_pending_writes)
        self.assertEqual(self.names(), [])
        self.assertEqual(self.told, [])
        self.thread.run()
        self.assertEqual(self.held(), b"one")
        self.assertEqual(self.told, ["one"])
        self.assertFalse(self.file.has_pending_writes)
        self.assertEqual(self.thread.calls, [])

    def test_only_the_newest_waits(self) -> None:
        for data in (b"one", b"two", b"three", b"four"):
            self.save(data)
        self.assertEqual(self.thread.run(), b"one")
        self.assertEqual(self.told, ["one"])
        self.assertTrue(self.file.has_pending_writes)
        self.save(b"five")
        self.assertEqual(self.thread.run(), b"four")
        self.assertEqual(self.told, ["one", "two", "three", "four"])
        self.assertEqual(self.thread.run(), b"five")
        self.assertEqual(self.told[-1], "five")
        self.assertFalse(self.file.has_pending_writes)

    def test_failures(self) -> None:
        for data in (b"one", b"two", b"three"):
            self.save(data)
        self.thread.run()
        self.save(b"four")
        self.file.schedule(b"five")
        (event,) = self.run_failing()
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertEqual(
            formatEvent(event), f"the state could not be written to {self.path!r}: Not so"
        )
        self.assertEqual(self.told, ["one", ("two", PermissionError), ("three", PermissionError)])
        self.assertEqual(self.held(), b"one")
        self.assertEqual(self.thread.run(), b"five")
        self.assertEqual(self.told[3:], ["four"])
        self.assertFalse(self.file.has_pending_writes)

    def test_a_save_after_a_failure(self) -> None:
        self.save(b"one")
        self.run_failing()
        self.assertFalse(self.file.has_pending_writes)
        self.save(b"two")
        self.thread.run()
        self.assertEqual(self.told, [("one", PermissionError), "two"])
        self.assertEqual(self.held(), b"two")

    def test_nobody_waits(self) -> None:
        # Trial fails a test that leaves an unhandled failure.
        self.file.schedule(b"one")
        self.assertEqual(len(self.run_failing()), 1)
        self.file.schedule(b"two")
        self.file.schedule(b"three")
        self.thread.run()
        self.thread.run()
        self.assertEqual(self.held(), b"three")

    def test_what_is_saved_by_who_is_told(self) -> None:
        self.file.save(b"one").addCallback(lambda _: self.save(b"four"))
        for data in (b"two", b"three"):
            self.save(data)
        self.thread.run()
        self.assertEqual(self.thread.run(), b"four")
        self.assertEqual(self.told, ["two", "three", "four"])
        self.assertFalse(self.file.has_pending_writes)

    def test_who_is_told_may_fail(self) -> None:
        self.file.save(b"one").addCallback(lambda _: 1 / 0)
        self.save(b"one", "other")
        self.thread.run()
        self.thread.run()
        self.assertEqual(self.told, ["other"])
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_who_no_longer_wants_to_know(self) -> None:
        waiter = self.file.save(b"one")
        waiter.addErrback(lambda failure: self.told.append(failure.type))
        flusher = self.file.flush()
        waiter.cancel()
        flusher.addErrback(lambda _: None)
        flusher.cancel()
        self.thread.run()
        self.assertEqual(self.told, [CancelledError])
        self.assertFalse(self.file.has_pending_writes)

    def test_flush(self) -> None:
        self.flush()
        self.assertEqual(self.told, ["flushed"])
        self.save(b"one")
        self.flush()
        self.save(b"two")
        self.thread.run()
        self.assertEqual(self.told[1:], ["one"])
        self.thread.run()
        self.assertEqual(self.told[1:], ["one", "two", "flushed"])

    def test_flush_after_a_failure(self) -> None:
        self.file.schedule(b"one")
        self.flush()
        self.run_failing()
        self.assertEqual(self.told, ["flushed"])

    def test_who_saves_when_all_is_flushed(self) -> None:
        self.file.schedule(b"one")
        self.file.flush().addCallback(lambda _: self.save(b"two"))
        self.flush()
        self.thread.run()
        self.assertEqual(self.told, [])
        self.thread.run()
        self.assertEqual(self.told, ["two", "flushed"])

    def test_threads_that_are_not_there(self) -> None:
        def refuse(*_: object) -> Deferred[None]:
            raise RuntimeError("no threads")

        self.file = StateFile(self.path, refuse)
        self.save(b"one")
        self.flush()
        self.assertEqual(self.told, [("one", RuntimeError), "flushed"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_threads_that_answer_at_once(self) -> None:
        results = [succeed(None), fail(OSError(errno.ENOSPC, "Full")), succeed(None)]
        self.file = StateFile(self.path, lambda *_: results.pop(0))
        for data in (b"one", b"two", b"three"):
            self.save(data)
        self.flush()
        self.assertEqual(self.told, ["one", ("two", OSError), "three", "flushed"])
