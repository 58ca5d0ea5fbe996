"""Arguments of the operator commands."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence

DEFAULT_ADMIN = "127.0.0.1:1101"

# Seconds. The longest request is a registration: its response follows a health check of the new
# server, which takes up to 2 s by default.
DEFAULT_TIMEOUT = 10.0

# The help text of each command.
COMMANDS: Mapping[str, str] = {
    "status": "show all servers and their states",
    "drain": "send no new requests to a server",
    "maintenance": "send neither new requests nor health checks to a server",
    "ready": "end drain or maintenance: send requests to a server again",
    "weight": "set the weight of a server",
    "register": "add a server that passes a health check, or set the weight of a registered one",
    "remove": "drain a server, then remove it from its pool",
    "reload": "read the configuration again",
    "requests": "show recent requests, or the failed or slowest ones",
    "config": "show the effective configuration, with secrets masked",
}

# The commands with a server address as argument, and of these the commands with --wait.
_SERVER_COMMANDS = ("drain", "maintenance", "ready", "weight", "register", "remove")
_WAIT_COMMANDS = ("drain", "maintenance", "remove")

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")

# The common options, and whether a value follows.
_COMMON_OPTIONS = {"--admin": True, "--token-file": True, "--timeout": True, "--json": False}

_EPILOG = """\
exit status:
  0  done
  1  rejected, or not achieved in time
  2  invalid usage
  3  balancer not reachable, or its response not understood

Without --token-file, the token is the value of the environment variable
BALANCEBEAM_TOKEN; without --admin, the address is that of BALANCEBEAM_ADMIN.
"""


def is_command(arguments: Sequence[str]) -> bool:
    """Whether `arguments` are an operator command, not options of a balancer to be started."""
    remaining = list(arguments)
    while remaining:
        name, equals, _ = remaining[0].partition("=")
        if name not in _COMMON_OPTIONS:
            break
        del remaining[: 2 if _COMMON_OPTIONS[name] and not equals else 1]
    return bool(remaining) and remaining[0] in COMMANDS


def parse_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """
    Parse the arguments of an operator command.

    Args:
        arguments: the command line without the name of the program.
        environment: the environment variables; BALANCEBEAM_ADMIN is the default of `--admin`.

    Returns:
        `command`, `admin`, `token_file`, `json`, `timeout`, `pool` and `wait` (seconds,
        infinity without a time limit, or None), and for some commands `address` and `weight`. For
        `requests`: `failed`, `slow`, `id` and `limit`.

    Raises:
        SystemExit: the arguments are invalid (status 2), or request the help text (status 0).
    """
    return _parser(environment).parse_args(_normalize_wait(arguments))


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "balancebeam",
        description="Show and change the state of a balancer that runs with --admin.",
        allow_abbrev=False,
    )
    _add_common_options(parser)
    parser.set_defaults(
        admin=environment.get("BALANCEBEAM_ADMIN") or DEFAULT_ADMIN,
        token_file=None,
        json=False,
        timeout=DEFAULT_TIMEOUT,
        pool=None,
        wait=None,
        failed=False,
        slow=False,
        id=None,
        limit=None,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_command_options(command, name)
        _add_common_options(command)
    return parser


def _add_command_options(command: argparse.ArgumentParser, name: str) -> None:
    if name in _SERVER_COMMANDS:
        command.add_argument(
            "address", metavar="ADDRESS", help="host:port, [v6]:port, unix:/path or http://…"
        )
    if name == "weight":
        command.add_argument("weight", type=_integer, metavar="N", help="0 to 256")
    if name == "requests":
        command.add_argument("--failed", action="store_true", help="only failed requests")
        command.add_argument("--slow", action="store_true", help="the slowest requests")
        command.add_argument("--id", metavar="ID", help="only the request with this id")
        command.add_argument("--limit", type=_integer, metavar="N", help="at most N (default: 100)")
    if name == "register":
        command.add_argument("--weight", type=_integer, metavar="N", help="0 to 256 (default: 1)")
        command.add_argument("--pool", help="pool of the server (default: the first frontend's)")
    elif name in _SERVER_COMMANDS:
        command.add_argument("--pool", help="pool of the server; required if several pools have it")
    elif name == "status":
        command.add_argument("--pool", help="show only the servers of this pool")
    if name in _WAIT_COMMANDS:
        command.add_argument(
            "--wait",
            nargs="?",
            type=_seconds_or_infinity,
            const=math.inf,
            metavar="SECONDS",
            help="wait until the server has nothing in flight, for at most SECONDS if given",
        )


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands, which may be before or after the command."""
    # The defaults of a subparser would overwrite values given before the command.
    parser.argument_default = argparse.SUPPRESS
    common = parser.add_argument_group("common options")
    common.add_argument(
        "--admin", metavar="ADDR", help=f"address of the admin listener (default: {DEFAULT_ADMIN})"
    )
    common.add_argument("--token-file", metavar="FILE", help="file with the token of the admin API")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help=f"time limit of each request to the admin API (default: {DEFAULT_TIMEOUT:g})",
    )


def _normalize_wait(arguments: Sequence[str]) -> list[str]:
    """
    Replace `--wait` by `--wait=inf` unless a number of seconds follows.

    argparse would take the address in `--wait ADDRESS` for the optional value.
    """
    normalized: list[str] = []
    for argument in arguments:
        if normalized and normalized[-1] == "--wait" and _SECONDS.fullmatch(argument) is None:
            normalized[-1] = "--wait=inf"
        normalized.append(argument)
    return normalized


def _seconds(text: str) -> float:
    if _SECONDS.fullmatch(text) is None or not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(
            f"invalid duration {text!r}: expected seconds above 0 and below 1000000"
        )
    return float(text)


def _seconds_or_infinity(text: str) -> float:
    return math.inf if text == "inf" else _seconds(text)


def _integer(text: str) -> int:
    # The admin API checks the range; int() would also accept 1_0, +1 and other digits than ASCII.
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: expected a whole number")
    return int(text)
