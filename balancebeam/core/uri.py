"""
Normalization of request paths and hosts, for routes and limits.

Servers interpret paths differently: some decode, strip parameters or merge
slashes before they look, others do not. What protects something must match
every interpretation (`has_prefix`); what only routes uses the most common one
(`normalize_path`). The target that is forwarded is never changed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

# Parameters of a path segment (";jsessionid=…"), which some servers strip.
_PARAMETERS = re.compile(rb";[^/]*")
_SLASHES = re.compile(rb"/+")


def canonical_path(target: bytes) -> bytes:
    """
    Return the path of a target, decoded and reduced as far as any server may do it.

    Percent-encoding is decoded, parameters are stripped, backslashes replaced,
    slashes merged and dot segments removed. For comparisons only.
    """
    path = _PARAMETERS.sub(b"", _decode_path(target))
    return posixpath.normpath(_SLASHES.sub(b"/", path))


def has_prefix(target: bytes, prefix: bytes) -> bool:
    """
    Whether some server may take the path of `target` for `prefix` or a path below it.

    Tried are all combinations of stripping parameters or not, merging slashes
    or not, and removing dot segments or not.

    Args:
        target: the target of a request.
        prefix: a path in canonical form (see `canonical_path`).
    """
    return any(
        prefix in (b"/", path) or path.startswith(prefix + b"/")
        for path in _interpretations(target)
    )


def _interpretations(target: bytes) -> Iterator[bytes]:
    """Return the paths that servers may see in `target`."""
    decoded = _decode_path(target)
    for path in {decoded, _PARAMETERS.sub(b"", decoded)}:
        for merged in {path, _SLASHES.sub(b"/", path)}:
            yield _SLASHES.sub(b"/", merged)
            yield _SLASHES.sub(b"/", _remove_dot_segments(merged))


def _decode_path(target: bytes) -> bytes:
    """Return the path of a target, decoded, with backslashes as slashes and one at its start."""
    path = unquote_to_bytes(target.partition(b"?")[0])
    return b"/" + path.replace(b"\\", b"/").lstrip(b"/")


def _remove_dot_segments(path: bytes) -> bytes:
    """Remove "." and ".." (RFC 3986, 5.2.4). ".." removes an empty segment like any other."""
    segments: list[bytes] = []
    for segment in path[1:].split(b"/"):
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment != b".":
            segments.append(segment)
    return b"/" + b"/".join(segments)


def normalize_path(target: bytes) -> bytes:
    """
    Return the path of a target as most servers interpret it.

    Percent-encoding is decoded, slashes are merged and dot segments removed
    (RFC 3986, 5.2.4).
    """
    path = target.partition(b"?")[0]
    if b"%" in path:
        path = unquote_to_bytes(path)
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return _remove_dot_segments(path) if b"/." in path else path


_PORT = re.compile(rb":[0-9]*$")

# Hosts whose normal form is cached: it is needed for each request of a frontend with
# routes, and most requests are for few hosts.
_HOST_CACHE_SIZE = 1024


@lru_cache(maxsize=_HOST_CACHE_SIZE)
def normalize_host(authority: bytes) -> bytes:
    """Return a host decoded, in lower case, without its port and a final dot."""
    host = _PORT.sub(b"", unquote_to_bytes(authority)).lower()
    return host[:-1] if host.endswith(b".") else host
