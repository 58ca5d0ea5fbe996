"""
The files of the admin page: HTML, CSS and JavaScript in `page/`, served as they are.

The page loads nothing from other hosts and has no inline script or style.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

INDEX = "index.html"

_DIRECTORY = Path(__file__).parent / "page"

_CONTENT_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

PAGE_HEADERS = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
)


@frozen
class PageFile:
    """
    A file of the page.

    Attributes:
        content: The bytes.
        content_type: The value of Content-Type.
    """

    content: bytes
    content_type: bytes


def load_page(directory: Path = _DIRECTORY) -> Mapping[str, PageFile]:
    """Read all files of the page, by name. They are small, and read once at the start."""
    return {
        path.name: PageFile(path.read_bytes(), _CONTENT_TYPES[path.suffix])
        for path in sorted(directory.iterdir())
        if path.suffix in _CONTENT_TYPES
    }
