"""The hosts file of `--hosts`: servers, one address per line."""

from __future__ import annotations

from balancebeam.config.addresses import parse_server_url
from balancebeam.core.errors import describe_os_error
from balancebeam.core.settings import ServerSettings


def load_hosts(path: str) -> tuple[list[ServerSettings], list[str]]:
    """
    Read the hosts file at `path`.

    Blank lines are ignored, and so is the rest of a line after `#`.

    Returns:
        The servers, and one message for each mistake, `<path>:<line>: <mistake>`.
    """
    try:
        # "utf-8-sig" skips a byte order mark, which editors of Windows write.
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError:
        return [], [f"{path}: cannot be read: it is not UTF-8"]
    except OSError as error:
        return [], [f"{path}: cannot be read: {describe_os_error(error)}"]
    servers: list[ServerSettings] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            server = parse_server_url(text)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if any(server.address == earlier.address for earlier in servers):
            problems.append(
                f"{path}:{number}: duplicate address {server.address}: expected each server once"
            )
        else:
            servers.append(server)
    if not servers and not problems:
        problems.append(f"{path}: no servers: expected one host:port per line")
    return servers, problems
