"""`balancebeam top`: its table, and its drawing in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.run import run
from balancebeam.cli.terminal import Terminal, width
from balancebeam.cli.top_table import (
    format_milliseconds,
    format_percent,
    format_seconds,
    top_table,
)
from tests.helpers.processes import BALANCEBEAM, TIMEOUT, wait_until
from tests.unit.cli.scripted_listener import failure, response, scripted_listener, success

Capture = pytest.CaptureFixture[str]


def server_info(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A server of a snapshot."""
    return {
        "pool": "app",
        "address": f"10.0.0.{number}:80",
        "state": "up",
        "weight": 1,
        "share": 0.5,
        "rate": 123.4,
        "error_rate": 0.012,
        "p50": 0.0021,
        "p99": 0.25,
        "in_flight": 3,
        "idle": 2,
        "backup": False,
        **changes,
    }


def snapshot_of(*servers: Any) -> dict[str, Any]:
    """A snapshot with `servers`."""
    return {
        "process": {"version": "1.2", "uptime": 90061, "cpu": 0.25, "draining": False},
        "pools": [{"rate": 246.8, "in_flight": 6, "queued": 1}],
        "frontends": [{"connections": 7}],
        "limits": [{"rejected_last_minute": 4}],
        "servers": list(servers),
    }


def stream(*events: tuple[str, Any]) -> bytes:
    """A response with server-sent events."""
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return response(text.encode(), content_type="text/event-stream")


class TableTests(SynchronousTestCase):
    """Lines, columns and formats."""

    def test_table(self) -> None:
        """Two lines have the totals, and aligned columns the values of each server."""
        lines = top_table(snapshot_of(server_info()), Terminal()).splitlines()
        self.assertEqual(lines[0], "balancebeam 1.2, ready, up 1d 1h, CPU 25.0%")
        self.assertEqual(
            lines[1],
            "247 requests/s, 6 in flight, 1 queued, 7 clients, 1 of 1 servers up, "
            "4 limited in the last minute",
        )
        self.assertEqual(
            lines[3:],
            [
                "POOL  SERVER       STATE  WEIGHT  SHARE  REQ/S  ERRORS    P50    P99"
                "  IN FLIGHT  IDLE",
                "app   10.0.0.1:80  up          1  50.0%    123    1.2%  2.1ms  250ms"
                "          3     2",
            ],
        )

    def test_narrow_terminals(self) -> None:
        """In every width down to 30 cells the lines fit, with name and state of each server."""
        servers = [server_info(number, state="maintenance") for number in range(1, 4)]
        for cells in range(30, 120):
            text = top_table(snapshot_of(*servers), Terminal(cells))
            lines = text.splitlines()[3:]
            self.assertLessEqual(max(map(width, lines)), cells)
            for line in lines[1:]:
                self.assertIn("10.0.0.", line)
                self.assertIn("maintenance", line)

    def test_low_terminal(self) -> None:
        """Without space for all servers the unavailable ones are first, and the rest is counted."""
        servers = [server_info(number) for number in range(1, 10)]
        servers.append(server_info(10, state="down"))
        for height in range(6, 20):
            lines = top_table(snapshot_of(*servers), Terminal(), height).splitlines()
            self.assertLessEqual(len(lines), height)
            self.assertTrue(any("down" in line for line in lines))
            if height < 14:
                self.assertRegex(lines[-1], r"and \d more")

    def test_missing_values(self) -> None:
        """Missing values and values of other types are dashes."""
        line = top_table({"servers": [{}, "x"], "process": 5}, Terminal()).splitlines()[-1]
        self.assertEqual(set(line.split()), {"-"})
        self.assertIn("no servers", top_table({}, Terminal()))

    def test_cells_are_escaped(self) -> None:
        """Control characters cannot reach the terminal."""
        evil = "a\x1b[2Jb\n"
        snapshot = snapshot_of(server_info(address=evil, state=evil, pool=evil, weight=evil))
        snapshot["process"]["version"] = snapshot["process"]["not_ready"] = evil
        text = top_table(snapshot, Terminal(colors=True))
        self.assertNotIn("\x1b", text)
        self.assertEqual(len(text.splitlines()), 5)

    def test_colors(self) -> None:
        """The state has a color if the terminal has colors."""
        text = top_table(snapshot_of(server_info(state="down")), Terminal(colors=True))
        self.assertIn("\x1b[31mdown", text)

    def test_formats(self) -> None:
        """Shares, latencies and durations have units."""
        self.assertEqual(
            [format_percent(value) for value in (0, 0.5, None)], ["0.0%", "50.0%", "-"]
        )
        self.assertEqual(
            [format_milliseconds(value) for value in (0.0004, 0.5, 2.5, 30.0, True)],
            ["0.4ms", "500ms", "2500ms", "30.0s", "-"],
        )
        self.assertEqual(
            [format_seconds(value) for value in (0, 59, 3600, 90061, "x")],
            ["0s", "59s", "1h", "1d 1h", "-"],
        )


def test_plain_output(capsys: Capture) -> None:
    """Without a terminal the table is printed once, without control sequences."""
    events = stream(("change", {}), ("snapshot", snapshot_of(server_info())))
    with scripted_listener(events) as listener:
        assert run(["top", "--admin", listener.address]) == 0
        out, err = capsys.readouterr()
        assert "10.0.0.1:80" in out
        assert "\x1b" not in out + err
        assert run(["top", "--json", "--admin", listener.address]) == 0
    assert json.loads(capsys.readouterr().out) == snapshot_of(server_info())


@pytest.mark.parametrize(
    ("received", "status", "message"),
    [
        (failure("too many viewers", "503 Service Unavailable"), 1, "too many viewers"),
        (success({}), 3, "does not answer as the admin listener"),
        (stream(("change", {})), 3, "closed the connection in the middle"),
        (stream(("snapshot", [])), 3, "unexpected response"),
        (response(b"event: snapshot\ndata: {\n\n", content_type="text/event-stream"), 3, "invalid"),
    ],
)
def test_errors(capsys: Capture, received: bytes, status: int, message: str) -> None:
    """Rejections have status 1, and responses without a snapshot status 3."""
    with scripted_listener(received) as listener:
        assert run(["top", "--admin", listener.address]) == status
    assert message in capsys.readouterr().err


@contextmanager
def top_in_terminal(address: str, lines: int, columns: int) -> Iterator[tuple[int, Any]]:
    """Run `top` in a pseudoterminal; yield its other end and the process."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        [BALANCEBEAM, "top", "--admin", address, "--interval", "60"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait(TIMEOUT)
        os.close(ours)


def read_until(terminal: int, text: bytes) -> bytes:
    """Read the output until it contains `text`."""
    received = bytearray()

    def complete() -> bool:
        """Read more; whether `text` has been received."""
        received.extend(os.read(terminal, 65536))
        return text in received

    wait_until(complete)
    return bytes(received)


@pytest.mark.parametrize("interrupt", [False, True])
def test_end(interrupt: bool) -> None:
    """q and Ctrl-C end the program with status 0, and the terminal is restored."""
    with scripted_listener(stream(("snapshot", snapshot_of(server_info())))) as listener:
        with top_in_terminal(listener.address, 24, 80) as (terminal, process):
            assert b"\x1b[?1049h" in read_until(terminal, b"10.0.0.1:80")
            before = termios.tcgetattr(terminal)[3]
            assert not before & termios.ICANON
            if interrupt:
                # The pseudoterminal is not the controlling one, so that Ctrl-C sends no signal.
                process.send_signal(signal.SIGINT)
            else:
                os.write(terminal, b"q")
            read_until(terminal, b"\x1b[?1049l")
            assert process.wait(TIMEOUT) == 0
            assert termios.tcgetattr(terminal)[3] & termios.ICANON


def test_resize() -> None:
    """A resized terminal is drawn again at once."""
    with scripted_listener(stream(("snapshot", snapshot_of(server_info())))) as listener:
        with top_in_terminal(listener.address, 24, 40) as (terminal, process):
            assert b"WEIGHT" not in read_until(terminal, b"10.0.0.1:80")
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
            process.send_signal(signal.SIGWINCH)
            read_until(terminal, b"WEIGHT")
