"""
The configuration file of mini-balancer, one of the programs that balancebeam replaces.

Its schema has one TCP frontend, `[frontend] bind_on`, with servers in round robin,
`[[frontend.backend]] forward_to`.
"""

from __future__ import annotations

import re
from typing import Any, Callable, TypeVar

from balancebeam.config.addresses import parse_listen_address, parse_server_url
from balancebeam.config.reader import escape_control
from balancebeam.config.values import display
from balancebeam.core.addresses import ServerAddress
from balancebeam.core.settings import FrontendSettings, PoolSettings, ServerSettings, Settings

T = TypeVar("T")

_BACKEND = re.compile(r"\s*\[\[\s*frontend\s*\.\s*backend\s*\]\]")


def is_mini_balancer(content: dict[str, Any]) -> bool:
    """Return whether the parsed file has the schema of mini-balancer."""
    frontend = content.get("frontend")
    return isinstance(frontend, dict) and ("bind_on" in frontend or "backend" in frontend)


def parse_mini_balancer(
    path: str, text: str, content: dict[str, Any]
) -> tuple[Settings, list[str]]:
    """
    Parse a file of mini-balancer.

    Args:
        path: the path of the file, for messages.
        text: the text of the file, in which the lines of mistakes are searched.
        content: the text, parsed as TOML.

    Returns:
        The settings, and one message for each mistake.
    """
    parser = _Parser(path, text)
    settings = parser.parse(content)
    return settings, parser.problems


class _Parser:
    """
    Parser of one file.

    Attributes:
        problems: one message for each mistake.
    """

    def __init__(self, path: str, text: str) -> None:
        self.problems: list[str] = []
        self._path = path
        self._lines = text.splitlines()
        self._addresses: set[ServerAddress] = set()

    def parse(self, content: dict[str, Any]) -> Settings:
        """Return the settings of the file; mistakes are added to `problems`."""
        all_lines = range(1, len(self._lines) + 1)
        self._reject_unknown_keys("", content, ("frontend",), all_lines)
        frontend = content.get("frontend")
        if not isinstance(frontend, dict):
            self._add_error(
                "frontend", all_lines, "missing table: expected [frontend] with bind_on"
            )
            return Settings((), ())
        self._reject_unknown_keys("frontend.", frontend, ("bind_on", "backend"), all_lines)
        bind = self._address(frontend.get("bind_on"), "bind_on", all_lines, parse_listen_address)
        backends = frontend.get("backend", [])
        if not isinstance(backends, list) or not backends:
            self._add_error(
                "frontend",
                all_lines,
                "missing servers: expected a table [[frontend.backend]] with forward_to",
            )
            backends = []
        servers = [
            server
            for number, backend in enumerate(backends)
            for server in self._parse_backend(number, backend)
        ]
        pool = PoolSettings(servers=tuple(servers))
        # mini-balancer logs every connection.
        settings = FrontendSettings(
            bind=() if bind is None else (bind,), mode="tcp", pool=pool.name, log_connections=True
        )
        return Settings((settings,), (pool,))

    def _parse_backend(self, number: int, backend: Any) -> list[ServerSettings]:
        """Return the server of a backend; none if it has a mistake."""
        lines = self._backend_lines(number)
        if not isinstance(backend, dict):
            self._add_error(
                "backend",
                lines,
                f"invalid backend {display(backend)}: expected a table [[frontend.backend]]",
            )
            return []
        self._reject_unknown_keys("frontend.backend.", backend, ("forward_to",), lines)
        server = self._address(backend.get("forward_to"), "forward_to", lines, parse_server_url)
        if server is None:
            return []
        address = server.address
        if address in self._addresses:
            self._add_error(
                "forward_to",
                lines,
                f"forward_to: duplicate address {address}: expected each server once",
            )
        self._addresses.add(address)
        return [server]

    def _backend_lines(self, number: int) -> range:
        """Return the line numbers of a backend; empty if it has no header `[[…]]` of its own."""
        headers = [n for n, line in enumerate(self._lines, 1) if _BACKEND.match(line)]
        if number >= len(headers):
            return range(0)
        boundaries = [*headers, len(self._lines) + 1]
        return range(boundaries[number], boundaries[number + 1])

    def _address(self, value: Any, key: str, lines: range, parse: Callable[[str], T]) -> T | None:
        """Return the address at `key`, parsed; `None` if it is missing or invalid."""
        if value is None:
            self._add_error(key, lines, f'missing {key}: expected {key} = "host:port"')
            return None
        if not isinstance(value, str):
            self._add_error(
                key, lines, f'invalid {key} {display(value)}: expected {key} = "host:port"'
            )
            return None
        try:
            return parse(value)
        except ValueError as error:
            self._add_error(key, lines, f"{key}: {error}")
            return None

    def _reject_unknown_keys(
        self, prefix: str, table: dict[str, Any], known: tuple[str, ...], lines: range
    ) -> None:
        for key in table:
            if key not in known:
                self._add_error(
                    key, lines, f"{prefix}{key}: unknown key: expected {', '.join(known)}"
                )

    def _add_error(self, key: str, lines: range, message: str) -> None:
        """Record a mistake, at the line of `key` among `lines`, or else at the first of them."""
        pattern = re.compile(rf"\s*(\[+\s*)?\b{re.escape(key)}\b")
        matches = [n for n in lines if pattern.match(self._lines[n - 1])]
        line = next(iter(matches), lines.start if lines and lines.start > 1 else 0)
        location = f"{self._path}:{line}" if line else self._path
        self.problems.append(escape_control(f"{location}: {message}"))
