"""What is asked of a server to find out how it is."""

from __future__ import annotations

import re

# RFC 3986: what a path and a query may consist of.
_TARGET = re.compile(r"/([A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")


def parse_check_path(text: str) -> str:
    """The path, and perhaps the query, of a health check. Raises `ValueError`."""
    if _TARGET.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no path; give one such as /health")
    return text
