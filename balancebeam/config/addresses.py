"""Addresses as people write them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import ServerSettings

_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/@,\s]+)):(?P<port>[0-9]{1,5})"
)
_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_\-]*[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_\-]*[A-Za-z0-9])?)*\.?"
)
# Descriptions of endpoints begin with the kind. That of a plugin is only told
# from a mistyped address by its named arguments.
_ENDPOINT = re.compile(r"(tcp|tcp6|unix|systemd|stdio):.+|[a-z][a-z0-9]*:[^/].*=.*")

# Versions of the PROXY protocol.
_PROXY_VERSIONS = {"": None, "v1": 1, "v2": 2}

# Those whose transports can be handed from one protocol to another.
_PLAIN_ENDPOINT = re.compile(r"(tcp|tcp6|unix|systemd):")

# sockaddr_un has 108 octets, the last of which is the terminating NUL.
_MAX_PATH_LENGTH = 107


def parse_tcp_address(text: str) -> TcpAddress:
    """`host:port` or `[v6]:port`. Raises `ValueError`, saying what would be right."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no address; give host:port, [v6]:port or unix:/path")
    port = int(match["port"])
    if port > 65535:
        raise ValueError(f"{text!r} has no such port; ports go from 0 to 65535")
    if match["v6"] is not None:
        try:
            # In the one way to write it, so that equal addresses are equal.
            return TcpAddress(str(IPv6Address(match["v6"])), port)
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address in its brackets") from None
    host = match["host"]
    if _NAME.fullmatch(host) is None or _is_broken_ipv4(host):
        raise ValueError(f"{text!r} has no valid host; give a name or an IP address")
    return TcpAddress(host.lower(), port)


def _is_broken_ipv4(host: str) -> bool:
    """Whether this can only have been meant as an IPv4 address, and is none."""
    if not host.rstrip(".").split(".")[-1].isdigit():
        return False
    try:
        IPv4Address(host)
    except ValueError:
        return True
    return False


def _parse_unix_address(text: str) -> UnixAddress:
    path = text[len("unix:") :]
    try:
        fits = len(path.encode()) <= _MAX_PATH_LENGTH
    except UnicodeEncodeError:
        fits = False
    if not path.startswith("/") or "\0" in path or not fits:
        raise ValueError(
            f"{text!r} has no valid path; give unix:/path, at most {_MAX_PATH_LENGTH} bytes"
        )
    return UnixAddress(path)


def parse_listen_address(text: str) -> ListenAddress:
    """
    Where to listen: `host:port`, `[v6]:port`, `unix:/path` or a Twisted server
    endpoint description; behind `haproxy:` for the PROXY protocol. Raises
    `ValueError`.
    """
    if text.startswith("unix:/") and ":" not in text[len("unix:") :]:
        return _parse_unix_address(text)
    if text.startswith(("ssl:", "tls:", "txacme:")):
        raise ValueError(f"{text!r}: TLS is not supported yet; give a plain address")
    if text.startswith("haproxy:"):
        address = parse_listen_address(text[len("haproxy:") :])
        if isinstance(address, ProxyProtocolAddress):
            raise ValueError(f"{text!r} says haproxy: twice")
        if isinstance(address, EndpointAddress) and not _PLAIN_ENDPOINT.match(str(address)):
            raise ValueError(f"{text!r}: only plain endpoints take haproxy: before them")
        return ProxyProtocolAddress(address)
    if _ENDPOINT.fullmatch(text):
        return EndpointAddress(text)
    return parse_tcp_address(text)


def parse_server_address(text: str) -> ServerAddress:
    """
    Where a server is: `host:port`, `[v6]:port`, `unix:/path` or `http://…`.
    Raises `ValueError`.
    """
    if text.startswith("https://"):
        raise ValueError(f"{text!r}: TLS to servers is not supported yet; give http://host:port")
    if text.startswith("unix:"):
        return _parse_unix_address(text)
    if text.startswith("http://"):
        authority = text[len("http://") :].rstrip("/")
        if "/" in authority:
            raise ValueError(f"{text!r} has a path; give http://host:port")
        if not re.search(r":[0-9]+$", authority):
            authority += ":80"
        address = parse_tcp_address(authority)
    else:
        address = parse_tcp_address(text)
    if address.port == 0:
        raise ValueError(f"{text!r} has no such port; a server's ports go from 1 to 65535")
    return address


def parse_server(text: str) -> ServerSettings:
    """`ADDR[,weight=N][,backup][,proxy=v1|v2]`. Raises `ValueError`."""
    address, comma, rest = text.partition(",")
    found: dict[str, str] = {}
    for item in rest.split(",") if comma else []:
        name, value = _parse_option(text, item)
        if name in found:
            raise ValueError(f"{text!r} says {name} twice")
        found[name] = value
    return ServerSettings(
        parse_server_address(address),
        _parse_weight(text, found.get("weight", "1")),
        "backup" in found,
        proxy_protocol=_PROXY_VERSIONS[found.get("proxy", "")],
    )


def _parse_option(text: str, item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    known = {"weight": bool(value), "backup": not equals, "proxy": value in ("v1", "v2")}
    if known.get(name):
        return name, value
    raise ValueError(f"{text!r}: {item!r} is not known; give weight=N, backup or proxy=v2")


def _parse_weight(text: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= 256):
        raise ValueError(f"{text!r}: a weight is a whole number from 0 to 256")
    return int(value)
