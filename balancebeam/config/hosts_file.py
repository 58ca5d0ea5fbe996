"""S2's hosts file: one server a line."""

from __future__ import annotations

from balancebeam.config.addresses import parse_server_address
from balancebeam.core.settings import ServerSettings


def load_hosts(path: str) -> tuple[list[ServerSettings], list[str]]:
    """
    The servers in the file at `path`, and what is wrong with it, a line each.

    Blank lines, and what follows a `#`, mean nothing.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return [], [f"{path}: cannot be read: {reason}"]
    servers: list[ServerSettings] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            server = ServerSettings(parse_server_address(text))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if server in servers:
            problems.append(f"{path}:{number}: {server.address} is given twice")
        else:
            servers.append(server)
    if not servers and not problems:
        problems.append(f"{path}: names no server; give one host:port a line")
    return servers, problems
