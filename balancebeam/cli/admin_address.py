"""Address and token of the admin API, from the command line and the environment."""

from __future__ import annotations

import re
from typing import NamedTuple

from balancebeam.cli.errors import UsageError, describe_os_error

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(%\w+)?\]|[A-Za-z0-9_.\-]+):([0-9]{1,5})")

# Bytes. A longer file is not a token file but was named by mistake.
_MAX_TOKEN_LENGTH = 4096


class AdminAddress(NamedTuple):
    """
    Address of the admin listener: a host and a port, or a Unix socket.

    Attributes:
        text: the address as given, for messages.
        host: name or IP address, IPv6 without brackets; empty for a Unix socket.
        port: port number; 0 for a Unix socket.
        path: path of the Unix socket; empty for a host and a port.
    """

    text: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def host_header(self) -> str:
        """Value of the Host header."""
        if self.path:
            return "localhost"
        # RFC 6874, 4: the zone identifier has only local significance and is not sent.
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_admin_address(text: str) -> AdminAddress:
    """
    Parse the value of `--admin`.

    Args:
        text: `host:port`, `[v6]:port`, `unix:/path` or `http://host[:port]`.

    Raises:
        UsageError: the text has none of these forms.
    """
    if text.startswith("unix:/"):
        return AdminAddress(text, path=text[len("unix:") :])
    if text.startswith("https://"):
        raise UsageError(
            f"--admin: invalid address {text!r}: "
            "expected http://host:port, because the admin listener has no TLS"
        )
    authority = normalize_address(text)
    match = _HOST_PORT.fullmatch(authority)
    if match is None or not 0 < int(match[3]) < 65536:
        raise UsageError(
            f"--admin: invalid address {text!r}: expected host:port, [v6]:port or unix:/path"
        )
    return AdminAddress(text, match[1].strip("[]"), int(match[3]))


def normalize_address(text: str) -> str:
    """Return `host:port` for `http://host:port/` and `http://host`, and other text unchanged."""
    if not text.startswith("http://"):
        return text
    authority = text[len("http://") :].rstrip("/")
    if "/" in authority:
        return text
    return authority if re.search(r":[0-9]+$", authority) else f"{authority}:80"


def load_token(path: str | None, environment_value: str | None) -> str | None:
    """
    Return the token for the admin API, or None if there is none.

    Args:
        path: the token file; it takes precedence.
        environment_value: the value of the environment variable BALANCEBEAM_TOKEN.

    Raises:
        UsageError: the file cannot be read, or the content is no token. The message does
            not contain the content.
    """
    if path is not None:
        source = f"--token-file: {path}"
        try:
            with open(path, "rb") as file:
                value = file.read(_MAX_TOKEN_LENGTH + 1).strip()
        except OSError as error:
            raise UsageError(f"{source}: cannot be read: {describe_os_error(error)}") from None
    elif environment_value:
        source = "BALANCEBEAM_TOKEN"
        value = environment_value.encode("utf-8", "surrogateescape").strip()
    else:
        return None
    if not 0 < len(value) <= _MAX_TOKEN_LENGTH or not all(32 < byte < 127 for byte in value):
        raise UsageError(f"{source}: invalid token: expected one word of printable ASCII")
    return value.decode("ascii")
