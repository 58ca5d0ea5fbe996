"""A command from its arguments to its exit status."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from balancebeam.cli.admin_address import load_token, parse_admin_address
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.arguments import parse_arguments
from balancebeam.cli.commands import Commands
from balancebeam.cli.errors import CommandError
from balancebeam.cli.terminal import Terminal, escape


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
    args = parse_arguments(arguments, environment)
    try:
        address = parse_admin_address(args.admin)
        token = load_token(args.token_file, environment.get("BALANCEBEAM_TOKEN"))
        connection = AdminClient(address, token, args.timeout)
        done = Commands(connection, _detect_terminal(environment)).run(args)
        shown = json.dumps(done.data, indent=2) if args.json else done.text.rstrip("\n")
    except RecursionError:
        print(f"balancebeam: {escape(args.admin)} nests its answer too deep", file=sys.stderr)
        return 3
    except CommandError as error:
        for line in error.text.splitlines() or [""]:
            print(f"balancebeam: {escape(line)}", file=sys.stderr)
        return error.status
    print(shown, flush=True)
    return 0


def _detect_terminal(environment: Mapping[str, str]) -> Terminal:
    """What stdout is good for."""
    if not sys.stdout.isatty():
        return Terminal()
    # https://no-color.org: when it is there and not empty.
    colors = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Terminal(shutil.get_terminal_size().columns, colors)
