"""Matchers: the conditions of routes on the host and the path of a request."""

from __future__ import annotations

import re

from balancebeam.core.uri import normalize_path

_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_\-.]*[a-z0-9_])?|\[[0-9a-f:.]+\]")


class HostPathMatcher:
    """
    Matches a host, a path prefix, or both.

    Hosts are compared without regard to case and port. "*.example.org" matches all
    names below example.org, but not example.org itself.

    A path matches on segment boundaries: "/v1" matches /v1 and everything below
    /v1/. Paths are compared as most servers interpret them: percent-encoding decoded,
    slashes merged, dot segments resolved.
    """

    def __init__(self, host: str | None = None, path: str | None = None) -> None:
        """
        Create a matcher.

        Args:
            host: A host name, an IP address or a wildcard; `None` matches every host.
            path: A path prefix; `None` and "/" match every path.

        Raises:
            ValueError: `host` or `path` is invalid.
        """
        self._exact_host: bytes | None = None
        self._host_suffix: bytes | None = None
        if host is not None:
            name = host.lower().removesuffix(".")
            if _HOST_PATTERN.fullmatch(name) is None or ".." in name:
                raise ValueError(f"invalid host {host!r}: expected a name such as api.example.org")
            if name.startswith("*."):
                self._host_suffix = name[1:].encode()
            else:
                self._exact_host = name.encode()
        self._path: bytes | None = None
        if path is not None and path != "/":
            if not path.startswith("/") or "?" in path or "#" in path:
                raise ValueError(f"invalid path {path!r}: expected a path such as /v1")
            self._path = normalize_path(path.encode()).rstrip(b"/")
        elif path == "/":
            self._path = b""

    def matches(self, host: bytes, path: bytes) -> bool:
        """
        Whether a request matches.

        Args:
            host: The host, normalized by `normalize_host`.
            path: The path, normalized by `normalize_path`.
        """
        if self._exact_host is not None and host != self._exact_host:
            return False
        if self._host_suffix is not None and not host.endswith(self._host_suffix):
            return False
        prefix = self._path
        return not prefix or path == prefix or path.startswith(prefix + b"/")


class PathMatcher:
    """Matches exactly one path of any host."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def matches(self, host: bytes, path: bytes) -> bool:
        """See `HostPathMatcher.matches`."""
        return path == self._path
