"""The operator's commands as they are typed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence

DEFAULT_ADMIN = "127.0.0.1:1101"
DEFAULT_TIMEOUT = 10.0

COMMANDS: Mapping[str, str] = {
    "status": "show every server",
    "drain": "give a server nothing new",
    "maintenance": "give a server nothing new, and do not check it either",
    "ready": "let a server have traffic again",
    "weight": "give a server another weight",
    "register": "add a server, if it is alive, or change its weight",
    "remove": "drain a server, and forget it then",
    "reload": "have the configuration read again",
    "config": "show the configuration that is in effect, without secrets",
}

# Those that are about a server, and those that can wait for it.
_SERVER_COMMANDS = ("drain", "maintenance", "ready", "weight", "register", "remove")
_WAIT_COMMANDS = ("drain", "maintenance", "remove")

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")

# The common options, and whether something follows them.
_COMMON_OPTIONS = {"--admin": True, "--token-file": True, "--timeout": True, "--json": False}

_EPILOG = """\
exit status:
  0  done
  1  refused, or not come about
  2  wrong usage
  3  the balancer cannot be reached or understood

The token is taken from FILE or from BALANCEBEAM_TOKEN in the environment,
the address from BALANCEBEAM_ADMIN if it is not given.
"""


def is_command(arguments: Sequence[str]) -> bool:
    """Whether these are for a balancer that runs, instead of for one to be started."""
    rest = list(arguments)
    while rest:
        name, equals, _ = rest[0].partition("=")
        if name not in _COMMON_OPTIONS:
            break
        del rest[: 2 if _COMMON_OPTIONS[name] and not equals else 1]
    return bool(rest) and rest[0] in COMMANDS


def parse_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """
    What they say: `command`, `admin`, `token_file`, `json` and `timeout`, and
    what the command has besides. Raises `SystemExit`, as argparse does.
    """
    found = _parser(environment).parse_args(_normalize_wait(arguments))
    for name in ("pool", "wait"):
        if not hasattr(found, name):
            setattr(found, name, None)
    return found


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "balancebeam",
        description="Look at a balancer that runs with --admin, and change it.",
        allow_abbrev=False,
    )
    _add_common_options(parser)
    parser.set_defaults(
        admin=environment.get("BALANCEBEAM_ADMIN") or DEFAULT_ADMIN,
        token_file=None,
        json=False,
        timeout=DEFAULT_TIMEOUT,
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
    if name == "register":
        command.add_argument("--weight", type=_integer, metavar="N", help="0 to 256 (1)")
        command.add_argument("--pool", help="where to (the first frontend's)")
    elif name in _SERVER_COMMANDS:
        command.add_argument("--pool", help="needed when several pools have the server")
    elif name == "status":
        command.add_argument("--pool", help="this one's servers only")
    if name in _WAIT_COMMANDS:
        command.add_argument(
            "--wait",
            nargs="?",
            type=_seconds_or_infinity,
            const=math.inf,
            metavar="SECONDS",
            help="wait until it has nothing in flight",
        )


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options of all commands, which stand before or after them."""
    # A default would win over what stands before the command.
    parser.argument_default = argparse.SUPPRESS
    common = parser.add_argument_group("of all commands")
    common.add_argument(
        "--admin", metavar="ADDR", help=f"where the balancer's --admin is ({DEFAULT_ADMIN})"
    )
    common.add_argument("--token-file", metavar="FILE", help="the file with the token")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help=f"time limit for each answer ({DEFAULT_TIMEOUT:g})",
    )


def _normalize_wait(arguments: Sequence[str]) -> list[str]:
    """`--wait ADDRESS` has no seconds, which argparse cannot know."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] == "--wait" and _SECONDS.fullmatch(argument) is None:
            found[-1] = "--wait=inf"
        found.append(argument)
    return found


def _seconds(text: str) -> float:
    if _SECONDS.fullmatch(text) is None or not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return float(text)


def _seconds_or_infinity(text: str) -> float:
    return math.inf if text == "inf" else _seconds(text)


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)
