"""Paths, compared as servers may understand them."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes


def normal_path(target: bytes) -> bytes:
    """
    The path of a request's target without what many servers see through:
    percent-encoding, doubled slashes and dots. For comparing only.
    """
    path = unquote_to_bytes(target.partition(b"?")[0])
    # posixpath keeps exactly two slashes at the beginning.
    return posixpath.normpath(b"/" + path.lstrip(b"/"))


def is_below(target: bytes, prefix: bytes) -> bool:
    """Whether the path of `target` is `prefix`, which is normal, or below it."""
    path = normal_path(target)
    return prefix in (b"/", path) or path.startswith(prefix + b"/")
