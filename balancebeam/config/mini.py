"""S3's file: one TCP frontend, and where it forwards to."""

from __future__ import annotations

import re
import sys
from typing import Any

from attrs import frozen

from balancebeam.config.addresses import read_listen_address, read_server_address
from balancebeam.model import ListenAddress, ServerSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BACKEND = re.compile(r"\s*\[\[\s*frontend\s*\.\s*backend\s*\]\]")


@frozen
class MiniSettings:
    """What S3's file says: a place to listen at, and servers to take in turn."""

    bind: tuple[ListenAddress, ...]
    servers: tuple[ServerSettings, ...]


def read_mini(path: str) -> tuple[MiniSettings, list[str]]:
    """What the file at `path` says, and what is wrong with it, a line each."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else path
        return MiniSettings((), ()), [f"{place}: is no TOML: {error}"]
    except UnicodeDecodeError:
        return MiniSettings((), ()), [f"{path}: cannot be read: it is not UTF-8"]
    except OSError as error:
        return MiniSettings((), ()), [f"{path}: cannot be read: {error.strerror}"]
    reader = _Reader(path, text)
    settings = reader.read(content)
    return settings, reader.problems


class _Reader:
    """Reads what the file holds, and notes what is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self.problems: list[str] = []
        self._path = path
        self._lines = text.splitlines()

    def read(self, content: dict[str, Any]) -> MiniSettings:
        all_lines = range(1, len(self._lines) + 1)
        self._only("", content, ("frontend",), all_lines)
        frontend = content.get("frontend")
        if not isinstance(frontend, dict):
            self._say("frontend", all_lines, "needs a table [frontend] with bind_on")
            return MiniSettings((), ())
        self._only("frontend.", frontend, ("bind_on", "backend"), all_lines)
        bind = self._address(frontend.get("bind_on"), "bind_on", all_lines, read_listen_address)
        backends = frontend.get("backend", [])
        if not isinstance(backends, list) or not backends:
            self._say("frontend", all_lines, "needs a table [[frontend.backend]] with forward_to")
            backends = []
        servers = [s for n, backend in enumerate(backends) for s in self._backend(n, backend)]
        return MiniSettings((bind,) if bind else (), tuple(servers))

    def _backend(self, number: int, backend: Any) -> list[ServerSettings]:
        lines = self._part(number)
        if not isinstance(backend, dict):
            self._say("backend", lines, "is no table; write [[frontend.backend]]")
            return []
        self._only("frontend.backend.", backend, ("forward_to",), lines)
        address = self._address(backend.get("forward_to"), "forward_to", lines, read_server_address)
        return [ServerSettings(address)] if address else []

    def _part(self, number: int) -> range:
        """The numbers of the lines of the `number`th backend, if that can be told."""
        heads = [n for n, line in enumerate(self._lines, 1) if _BACKEND.match(line)]
        if number >= len(heads):
            return range(0)
        ends = [*heads, len(self._lines) + 1]
        return range(ends[number], ends[number + 1])

    def _address(self, value: Any, key: str, lines: range, read: Any) -> Any:
        if not isinstance(value, str):
            self._say(key, lines, f'needs {key} = "host:port"')
            return None
        try:
            return read(value)
        except ValueError as error:
            self._say(key, lines, f"{key}: {error}")
            return None

    def _only(
        self, where: str, table: dict[str, Any], known: tuple[str, ...], lines: range
    ) -> None:
        for key in table:
            if key not in known:
                self._say(key, lines, f"{where}{key} is not known; there is {', '.join(known)}")

    def _say(self, key: str, lines: range, what: str) -> None:
        """Note a mistake: with the line of `key` among `lines`, or else the first of them."""
        pattern = re.compile(rf"\s*(\[+\s*)?\b{re.escape(key)}\b")
        found = [n for n in lines if pattern.match(self._lines[n - 1])]
        line = next(iter(found), lines.start if lines and lines.start > 1 else 0)
        place = f"{self._path}:{line}" if line else self._path
        self.problems.append(f"{place}: {what}")
