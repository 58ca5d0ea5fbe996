"""S3's file: one TCP frontend, and where it forwards to."""

from __future__ import annotations

import re
from typing import Any

from balancebeam.api import single_pool_settings
from balancebeam.config.addresses import parse_listen_address, parse_server_address
from balancebeam.config.reader import escape_control
from balancebeam.core.settings import ServerSettings, Settings

_BACKEND = re.compile(r"\s*\[\[\s*frontend\s*\.\s*backend\s*\]\]")


def is_mini_balancer(content: dict[str, Any]) -> bool:
    """Whether this is S3's schema."""
    frontend = content.get("frontend")
    return isinstance(frontend, dict) and ("bind_on" in frontend or "backend" in frontend)


def parse_mini_balancer(
    path: str, text: str, content: dict[str, Any]
) -> tuple[Settings, list[str]]:
    """
    What the file at `path`, which holds `text`, says, and what is wrong with
    it, a line each.
    """
    reader = _Parser(path, text)
    settings = reader.parse(content)
    return settings, reader.problems


class _Parser:
    """Reads what the file holds, and notes what is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self.problems: list[str] = []
        self._path = path
        self._lines = text.splitlines()
        self._seen: set[Any] = set()

    def parse(self, content: dict[str, Any]) -> Settings:
        all_lines = range(1, len(self._lines) + 1)
        self._reject_unknown_keys("", content, ("frontend",), all_lines)
        frontend = content.get("frontend")
        if not isinstance(frontend, dict):
            self._add_error("frontend", all_lines, "needs a table [frontend] with bind_on")
            return Settings((), ())
        self._reject_unknown_keys("frontend.", frontend, ("bind_on", "backend"), all_lines)
        bind = self._address(frontend.get("bind_on"), "bind_on", all_lines, parse_listen_address)
        backends = frontend.get("backend", [])
        if not isinstance(backends, list) or not backends:
            self._add_error(
                "frontend", all_lines, "needs a table [[frontend.backend]] with forward_to"
            )
            backends = []
        servers = [s for n, backend in enumerate(backends) for s in self._backend(n, backend)]
        # S3 told of every connection.
        return single_pool_settings(
            tuple(servers), (bind,) if bind else (), mode="tcp", log_connections=True
        )

    def _backend(self, number: int, backend: Any) -> list[ServerSettings]:
        lines = self._backend_lines(number)
        if not isinstance(backend, dict):
            self._add_error("backend", lines, "is no table; write [[frontend.backend]]")
            return []
        self._reject_unknown_keys("frontend.backend.", backend, ("forward_to",), lines)
        address = self._address(
            backend.get("forward_to"), "forward_to", lines, parse_server_address
        )
        if address and address in self._seen:
            self._add_error("forward_to", lines, f"forward_to: {address} is given twice")
        self._seen.add(address)
        return [ServerSettings(address)] if address else []

    def _backend_lines(self, number: int) -> range:
        """The numbers of the lines of the `number`th backend, if that can be told."""
        heads = [n for n, line in enumerate(self._lines, 1) if _BACKEND.match(line)]
        if number >= len(heads):
            return range(0)
        ends = [*heads, len(self._lines) + 1]
        return range(ends[number], ends[number + 1])

    def _address(self, value: Any, key: str, lines: range, parse: Any) -> Any:
        if not isinstance(value, str):
            self._add_error(key, lines, f'needs {key} = "host:port"')
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
                    key, lines, f"{prefix}{key} is not known; there is {', '.join(known)}"
                )

    def _add_error(self, key: str, lines: range, message: str) -> None:
        """Note a mistake: with the line of `key` among `lines`, or else the first of them."""
        pattern = re.compile(rf"\s*(\[+\s*)?\b{re.escape(key)}\b")
        found = [n for n in lines if pattern.match(self._lines[n - 1])]
        line = next(iter(found), lines.start if lines and lines.start > 1 else 0)
        place = f"{self._path}:{line}" if line else self._path
        self.problems.append(escape_control(f"{place}: {message}"))
