"""Hosts, compared."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

_PORT = re.compile(rb":[0-9]*$")


# Asked for every request where there are routes, mostly about the same few.
@lru_cache(maxsize=1024)
def plain_host(authority: bytes) -> bytes:
    """A host in the one way to write it, without its port."""
    host = _PORT.sub(b"", unquote_to_bytes(authority)).lower()
    return host[:-1] if host.endswith(b".") else host
