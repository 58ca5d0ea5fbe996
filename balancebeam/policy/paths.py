"""Paths, compared as servers may understand them."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote_to_bytes

# Parameters of a segment, which some servers strip before they look.
_PARAMETERS = re.compile(rb";[^/]*")
_SLASHES = re.compile(rb"[/\\]+")


def normal_path(target: bytes) -> bytes:
    """
    The path of a request's target without what many servers see through:
    percent-encoding, parameters of segments, doubled slashes, backslashes and
    dots. For comparing only.
    """
    return _without_dots(_decoded(target))


def is_below(target: bytes, prefix: bytes) -> bool:
    """
    Whether the path of `target` is `prefix`, which is normal, or below it: as
    a server sees it that resolves dots, or as one does that does not.
    """
    decoded = _decoded(target)
    return any(
        prefix in (b"/", path) or path.startswith(prefix + b"/")
        for path in (_without_dots(decoded), decoded)
    )


def _decoded(target: bytes) -> bytes:
    path = unquote_to_bytes(target.partition(b"?")[0])
    return _SLASHES.sub(b"/", b"/" + _PARAMETERS.sub(b"", path))


def _without_dots(path: bytes) -> bytes:
    return posixpath.normpath(path)
