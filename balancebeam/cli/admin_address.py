"""Where the admin listener is, and what opens it."""

from __future__ import annotations

import re
from typing import NamedTuple

from balancebeam.cli.errors import UsageError

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[A-Za-z0-9_.\-]+):([0-9]{1,5})")

# Longer ones are files given by mistake.
_MAX_TOKEN_LENGTH = 4096


class AdminAddress(NamedTuple):
    """A host (without brackets) and a port, or the path of a Unix socket. `text` was given."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def host_header(self) -> str:
        """What the Host field says."""
        if self.path:
            return "localhost"
        # RFC 6874, 4: what follows the percent sign is for this machine only.
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_admin_address(text: str) -> AdminAddress:
    """`host:port`, `[v6]:port`, `unix:/path` or `http://…`. Raises `UsageError`."""
    if text.startswith("unix:/"):
        return AdminAddress(text, path=text[len("unix:") :])
    if text.startswith("https://"):
        raise UsageError(f"--admin: {text!r}: the admin listener has no TLS; give http://host:port")
    authority = text
    if text.startswith("http://"):
        authority = normalize_address(text)
    match = _HOST_PORT.fullmatch(authority)
    if match is None or not 0 < int(match[3]) < 65536:
        raise UsageError(
            f"--admin: {text!r} is no address; give host:port, [v6]:port or unix:/path"
        )
    return AdminAddress(text, match[1].strip("[]"), int(match[3]))


def normalize_address(text: str) -> str:
    """`host:port` for `http://host:port/` and `http://host`; anything else as it is."""
    if not text.startswith("http://"):
        return text
    authority = text[len("http://") :].rstrip("/")
    if "/" in authority:
        return text
    return authority if re.search(r":[0-9]+$", authority) else f"{authority}:80"


def load_token(path: str | None, variable: str | None) -> str | None:
    """
    The token in `path`, else that in `variable`, the content of a variable of
    the environment. Raises `UsageError`, which does not show it.
    """
    if path is not None:
        where = f"--token-file: {path}"
        try:
            with open(path, "rb") as opened:
                value = opened.read(_MAX_TOKEN_LENGTH + 1).strip()
        except OSError as error:
            raise UsageError(f"{where}: cannot be read: {error.strerror}") from None
    elif variable:
        where = "BALANCEBEAM_TOKEN"
        value = variable.encode("utf-8", "surrogateescape").strip()
    else:
        return None
    if not 0 < len(value) <= _MAX_TOKEN_LENGTH or not all(32 < octet < 127 for octet in value):
        raise UsageError(f"{where} holds no token; a token is one word in ASCII")
    return value.decode("ascii")
