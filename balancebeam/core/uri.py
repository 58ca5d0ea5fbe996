"""Paths, compared as servers may understand them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

# Parameters of a segment, which some servers strip before they look.
_PARAMETERS = re.compile(rb";[^/]*")
_SLASHES = re.compile(rb"/+")


def canonical_path(target: bytes) -> bytes:
    """
    The path of a request's target without what many servers see through:
    percent-encoding, parameters of segments, doubled slashes, backslashes and
    dots. For comparing only.
    """
    path = _PARAMETERS.sub(b"", _decode_path(target))
    return posixpath.normpath(_SLASHES.sub(b"/", path))


def has_prefix(target: bytes, prefix: bytes) -> bool:
    """
    Whether the path of `target` is `prefix`, which is normal, or below it, as
    any server may see it: one that strips parameters or not, that merges
    slashes or not, that resolves dots or not.
    """
    return any(
        prefix in (b"/", path) or path.startswith(prefix + b"/")
        for path in _interpretations(target)
    )


def _interpretations(target: bytes) -> Iterator[bytes]:
    decoded = _decode_path(target)
    for path in {decoded, _PARAMETERS.sub(b"", decoded)}:
        for merged in {path, _SLASHES.sub(b"/", path)}:
            yield _SLASHES.sub(b"/", merged)
            yield _SLASHES.sub(b"/", _remove_dot_segments(merged))


def _decode_path(target: bytes) -> bytes:
    path = unquote_to_bytes(target.partition(b"?")[0])
    return b"/" + path.replace(b"\\", b"/").lstrip(b"/")


def _remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986, 5.2.4; an empty segment is one that ".." removes."""
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
    The path of a request's target as most servers read it: percent-encoding
    undone, slashes merged, dots resolved (RFC 3986, 5.2.4).
    """
    path = target.partition(b"?")[0]
    if b"%" in path:
        path = unquote_to_bytes(path)
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return _remove_dot_segments(path) if b"/." in path else path


_PORT = re.compile(rb":[0-9]*$")


# Asked for every request where there are routes, mostly about the same few.
@lru_cache(maxsize=1024)
def normalize_host(authority: bytes) -> bytes:
    """A host in the one way to write it, without its port."""
    host = _PORT.sub(b"", unquote_to_bytes(authority)).lower()
    return host[:-1] if host.endswith(b".") else host
