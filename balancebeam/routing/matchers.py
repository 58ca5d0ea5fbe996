"""Which requests a route is for."""

from __future__ import annotations

import re

from balancebeam.core.uri import normalize_path

_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_\-.]*[a-z0-9_])?|\[[0-9a-f:.]+\]")


class HostPathMatcher:
    """
    Requests for `host`, without regard to case or port, and `path`, a prefix on
    segment boundaries: "/v1" is /v1 and all below /v1/. A host "*.example.org"
    stands for all names below example.org, but not for that itself.

    Paths are compared as most servers read them: percent-encoding undone,
    slashes merged, dots resolved. Raises `ValueError`.
    """

    def __init__(self, host: str | None = None, path: str | None = None) -> None:
        self._exact_host: bytes | None = None
        self._host_suffix: bytes | None = None
        if host is not None:
            plain = host.lower().removesuffix(".")
            if _HOST_PATTERN.fullmatch(plain) is None or ".." in plain:
                raise ValueError(f"{host!r} is no host; give a name such as api.example.org")
            if plain.startswith("*."):
                self._host_suffix = plain[1:].encode()
            else:
                self._exact_host = plain.encode()
        self._path: bytes | None = None
        if path is not None and path != "/":
            if not path.startswith("/") or "?" in path or "#" in path:
                raise ValueError(f"{path!r} is no path; give one such as /v1")
            self._path = normalize_path(path.encode()).rstrip(b"/")
        elif path == "/":
            self._path = b""

    def matches(self, host: bytes, path: bytes) -> bool:
        """
        Whether a request is meant: `host` as `normalize_host` gives it, `path` as
        `normalize_path` does.
        """
        if self._exact_host is not None and host != self._exact_host:
            return False
        if self._host_suffix is not None and not host.endswith(self._host_suffix):
            return False
        prefix = self._path
        return not prefix or path == prefix or path.startswith(prefix + b"/")


class PathMatcher:
    """Requests for just this path, of whatever host."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def matches(self, host: bytes, path: bytes) -> bool:
        """See `HostPathMatcher.matches`."""
        return path == self._path
