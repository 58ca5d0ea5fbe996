"""A command from its arguments to its exit status."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from balancebeam.cli.admin_address import read_place, read_token
from balancebeam.cli.admin_client import Connection
from balancebeam.cli.arguments import read_arguments
from balancebeam.cli.commands import Commands
from balancebeam.cli.errors import CommandError
from balancebeam.cli.terminal import Screen, escape


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` say; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # Not every terminal has every letter.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments, os.environ)
    except OSError as error:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"balancebeam: cannot write: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    wish = read_arguments(arguments, environment)
    try:
        place = read_place(wish.admin)
        token = read_token(wish.token_file, environment.get("BALANCEBEAM_TOKEN"))
        connection = Connection(place, token, wish.timeout)
        done = Commands(connection, _screen(environment)).do(wish)
        shown = json.dumps(done.data, indent=2) if wish.json else done.text.rstrip("\n")
    except RecursionError:
        print(f"balancebeam: {escape(wish.admin)} nests its answer too deep", file=sys.stderr)
        return 3
    except CommandError as error:
        for line in error.text.splitlines() or [""]:
            print(f"balancebeam: {escape(line)}", file=sys.stderr)
        return error.status
    print(shown, flush=True)
    return 0


def _screen(environment: Mapping[str, str]) -> Screen:
    """What stdout is good for."""
    if not sys.stdout.isatty():
        return Screen()
    # https://no-color.org: when it is there and not empty.
    colors = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Screen(shutil.get_terminal_size().columns, colors)
