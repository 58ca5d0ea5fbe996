"""Run an operator command: from its arguments to its output and exit status."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from balancebeam.cli.admin_address import load_token, parse_admin_address
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.arguments import parse_arguments
from balancebeam.cli.commands import Commands
from balancebeam.cli.errors import CommandError, describe_os_error
from balancebeam.cli.terminal import Terminal, escape
from balancebeam.cli.top import is_interactive, run_top

# As a shell reports a program that SIGINT has ended: 128 + 2.
_INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """
    Run the command in `arguments` and print its result or its errors.

    Returns:
        The exit status: 0 done; 1 rejected, not achieved in time, or not printed; 2 invalid usage
        of addresses or tokens; 3 no usable response; 130 interrupted.

    Raises:
        SystemExit: argparse rejected the arguments (status 2), or printed the help (status 0).
    """
    for stream in (sys.stdout, sys.stderr):
        # The encoding of the terminal may lack characters of the output.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments, os.environ)
    except OSError as error:
        # Python flushes standard output at exit, which would fail and be reported once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader, such as head(1), has all it needs.
            return 0
        print(
            f"balancebeam: cannot write to standard output: {describe_os_error(error)}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    args = parse_arguments(arguments, environment)
    try:
        address = parse_admin_address(args.admin)
        token = load_token(args.token_file, environment.get("BALANCEBEAM_TOKEN"))
        client = AdminClient(address, token, args.timeout)
        terminal = _detect_terminal(environment)
        if args.command == "top" and not args.json and is_interactive():
            run_top(client, args, terminal)
            return 0
        result = Commands(client, terminal).run(args)
        output = json.dumps(result.data, indent=2) if args.json else result.text.rstrip("\n")
    except RecursionError:
        message = f"{args.admin} sent a response that is nested too deeply"
        print(f"balancebeam: {escape(message)}", file=sys.stderr)
        return 3
    except CommandError as error:
        for line in error.text.splitlines() or [""]:
            print(f"balancebeam: {escape(line)}", file=sys.stderr)
        return error.status
    print(output, flush=True)
    return 0


def _detect_terminal(environment: Mapping[str, str]) -> Terminal:
    """Return the width and the colors of standard output."""
    if not sys.stdout.isatty():
        return Terminal()
    # https://no-color.org: colors are off when NO_COLOR is set and not empty.
    colors = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    return Terminal(shutil.get_terminal_size().columns, colors)
