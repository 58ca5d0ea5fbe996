"""
`balancebeam top`: a table of the servers that is redrawn until q or Ctrl-C.

Each drawing reads one snapshot of `GET /events`, which the balancer makes once per second for
all of its readers. Without a terminal, the table is printed once.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.errors import CommandError, ConnectionFailed
from balancebeam.cli.terminal import Terminal, escape
from balancebeam.cli.top_table import top_table

# xterm control sequences: the alternate screen, and the visibility of the cursor.
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"

# To the top left; erase to the end of the line, and to the end of the screen.
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

_QUIT = b"qQ\x03\x04"


def read_snapshot(client: AdminClient) -> dict[str, Any]:
    """Return a current snapshot. Raises `CommandError`."""
    data = client.first_event("/events", "snapshot")
    if not isinstance(data, dict):
        raise ConnectionFailed(
            "unexpected response of the admin API: the balancer may be of another version"
        )
    return data


def is_interactive() -> bool:
    """Whether the table can be redrawn: the output is a terminal with cursor movement."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def run_top(client: AdminClient, args: Namespace, terminal: Terminal) -> None:
    """
    Show the table until a key ends it.

    Args:
        client: client of the admin API.
        args: the arguments; `interval` is the number of seconds between two drawings.
        terminal: colors of the output; its width is read again for each drawing.

    Raises:
        CommandError: the first snapshot could not be read. Later errors are shown above the
            table, until a snapshot can be read again.
    """
    snapshot = read_snapshot(client)
    # Ctrl-C is a regular end, as it is for top(1).
    with contextlib.suppress(KeyboardInterrupt), _screen() as wake_ups:
        problem = ""
        due = time.monotonic() + args.interval
        while True:
            _draw(snapshot, problem, terminal.colors)
            if _wait_for_quit(wake_ups, due - time.monotonic()):
                return
            if time.monotonic() < due:
                # The size of the terminal has changed.
                continue
            try:
                snapshot, problem = read_snapshot(client), ""
            except CommandError as error:
                problem = error.text
            due = time.monotonic() + args.interval


def _draw(snapshot: dict[str, Any], problem: str, colors: bool) -> None:
    size = shutil.get_terminal_size()
    # The last line stays empty: a line feed there would scroll.
    height = max(1, size.lines - 1)
    lines = [escape(f"not updated: {problem}").replace("\\u000a", "; ")] if problem else []
    text = top_table(snapshot, Terminal(size.columns, colors), height - len(lines))
    lines = [*lines, *text.splitlines()][:height]
    # Longer lines would wrap. The lines of the table, which may have colors, already fit.
    clipped = [line if "\x1b" in line else line[: size.columns] for line in lines]
    drawing = "".join(f"{line}{_ERASE_LINE}\n" for line in clipped)
    sys.stdout.write(f"{_HOME}{drawing}{_ERASE_BELOW}")
    sys.stdout.flush()


def _wait_for_quit(wake_ups: int, seconds: float) -> bool:
    """Wait until the time has passed or the terminal is resized; return whether to quit."""
    inputs = [wake_ups]
    if sys.stdin.isatty():
        inputs.append(sys.stdin.fileno())
    readable, _, _ = select.select(inputs, [], [], max(0.0, seconds))
    if wake_ups in readable:
        os.read(wake_ups, 4096)
    if sys.stdin.isatty() and sys.stdin.fileno() in readable:
        keys = os.read(sys.stdin.fileno(), 64)
        # No bytes: the terminal was closed.
        return not keys or any(key in _QUIT for key in keys)
    return False


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """
    Use the alternate screen, read single keys, and restore all of it at the end.

    Returns:
        A file descriptor that becomes readable when the size of the terminal has changed.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def resized(number: int, frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            # A full pipe wakes up the reader as well.
            os.write(writer, b"r")

    previous_handler = signal.signal(signal.SIGWINCH, resized)
    attributes = None
    try:
        if sys.stdin.isatty():
            attributes = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        sys.stdout.write(_ENTER)
        yield reader
    finally:
        if attributes is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, attributes)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        signal.signal(signal.SIGWINCH, previous_handler)
        os.close(reader)
        os.close(writer)
