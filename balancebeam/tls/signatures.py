"""The state of files, from which changes are detected without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Optional

# Each file with its modification time in nanoseconds, size and inode; `None` if it is missing.
Signatures = tuple[tuple[str, Optional[tuple[int, int, int]]], ...]


def file_signatures(paths: Iterable[str]) -> Signatures:
    """
    Return the state of files; a change of a file, or of a symbolic link to it, changes it.

    Blocks: to be called in a thread while clients are served.
    """
    return tuple((path, _file_signature(path)) for path in paths)


def _file_signature(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        # Reading the file gives the reason.
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
