"""
Parsers of addresses: of listeners, of servers, and of servers with options.

All of them raise a `ValueError` of the form `invalid <thing> <value>: expected <form>`. Host names
are put in lower case and IPv6 addresses in canonical form, so that equal addresses compare equal.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from balancebeam.config.values import parse_weight
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
_HOST_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_\-]*[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_\-]*[A-Za-z0-9])?)*\.?"
)
# Twisted endpoint descriptions begin with the name of their parser. The endpoint of a plugin
# has a named argument, which distinguishes it from a mistyped address.
_ENDPOINT = re.compile(r"(tcp|tcp6|unix|systemd|stdio):.+|[a-z][a-z0-9]*:[^/].*=.*")

# Endpoints whose transports can be passed from the PROXY protocol to another protocol.
_PLAIN_ENDPOINT = re.compile(r"(tcp|tcp6|unix|systemd):")

# A port alone stands for all IPv4 addresses, as in nginx and Go.
_PORT = re.compile(r":?[0-9]{1,5}")

# Option values and versions of the PROXY protocol.
_PROXY_VERSIONS = {"": None, "v1": 1, "v2": 2}

# sun_path of sockaddr_un has 108 bytes on Linux, the last of which is the terminating NUL.
_MAX_PATH_LENGTH = 107


def parse_tcp_address(text: str) -> TcpAddress:
    """Parse `host:port` or `[v6]:port`."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid address {text!r}: expected host:port, [v6]:port or unix:/path")
    port = int(match["port"])
    if port > 65535:
        raise ValueError(f"invalid address {text!r}: expected a port from 0 to 65535")
    if match["v6"] is not None:
        try:
            return TcpAddress(str(IPv6Address(match["v6"])), port)
        except ValueError:
            raise ValueError(
                f"invalid address {text!r}: expected an IPv6 address in the brackets"
            ) from None
    host = match["host"]
    if _HOST_NAME.fullmatch(host) is None or _is_malformed_ipv4(host):
        raise ValueError(f"invalid address {text!r}: expected a host name or an IP address")
    return TcpAddress(host.lower(), port)


def _is_malformed_ipv4(host: str) -> bool:
    """
    Return whether `host` ends in a number, but is not an IPv4 address.

    Top-level domains are not numeric (RFC 3696, 2), so such a host is a mistyped address.
    """
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
            f"invalid address {text!r}: expected unix:/path with a path "
            f"of at most {_MAX_PATH_LENGTH} bytes"
        )
    return UnixAddress(path)


def parse_listen_address(text: str) -> ListenAddress:
    """
    Parse the address of a listener.

    Args:
        text: `host:port`, `[v6]:port`, `unix:/path` or a Twisted server endpoint description;
            with the prefix `haproxy:` the listener accepts the PROXY protocol.
    """
    if text.startswith("unix:/") and ":" not in text[len("unix:") :]:
        return _parse_unix_address(text)
    if text.startswith(("ssl:", "tls:", "txacme:")):
        raise ValueError(
            f"unsupported address {text!r}: expected one without TLS; TLS is not supported yet"
        )
    if text.startswith("haproxy:"):
        address = parse_listen_address(text[len("haproxy:") :])
        if isinstance(address, ProxyProtocolAddress):
            raise ValueError(f"invalid address {text!r}: expected the prefix haproxy: once")
        if isinstance(address, EndpointAddress) and not _PLAIN_ENDPOINT.match(str(address)):
            raise ValueError(
                f"invalid address {text!r}: expected a tcp:, tcp6:, unix: or systemd: endpoint "
                "after haproxy:"
            )
        return ProxyProtocolAddress(address)
    if _ENDPOINT.fullmatch(text):
        return EndpointAddress(text)
    return parse_tcp_address(text)


def parse_bind_address(text: str) -> ListenAddress:
    """Parse the address of a frontend: of a listener, or a port alone for all addresses."""
    if _PORT.fullmatch(text):
        return parse_tcp_address(f"0.0.0.0:{text.lstrip(':')}")
    return parse_listen_address(text)


def parse_server_address(text: str) -> ServerAddress:
    """
    Parse the address of a server.

    Args:
        text: `host:port`, `[v6]:port`, `unix:/path`, `http://host` or `http://host:port`.
    """
    if text.startswith("https://"):
        raise ValueError(
            f"unsupported address {text!r}: expected http://host:port; "
            "TLS to servers is not supported yet"
        )
    if text.startswith("unix:"):
        return _parse_unix_address(text)
    if text.startswith("http://"):
        authority = text[len("http://") :].rstrip("/")
        if "/" in authority:
            raise ValueError(f"invalid address {text!r}: expected http://host:port without a path")
        if not re.search(r":[0-9]+$", authority):
            authority += ":80"
        address = parse_tcp_address(authority)
    else:
        address = parse_tcp_address(text)
    if address.port == 0:
        raise ValueError(f"invalid address {text!r}: expected a port from 1 to 65535")
    return address


def parse_server(text: str) -> ServerSettings:
    """Parse `ADDR[,weight=N][,backup][,proxy=v1|v2]`, with the options in any order."""
    address, comma, rest = text.partition(",")
    options: dict[str, str] = {}
    for item in rest.split(",") if comma else []:
        name, value = _parse_server_option(text, item)
        if name in options:
            raise ValueError(f"invalid server {text!r}: expected {name} once")
        options[name] = value
    server_address = parse_server_address(address)
    try:
        weight = parse_weight(options.get("weight", "1"))
    except ValueError as error:
        raise ValueError(f"server {text!r}: {error}") from None
    return ServerSettings(
        server_address,
        weight,
        "backup" in options,
        proxy_protocol=_PROXY_VERSIONS[options.get("proxy", "")],
    )


def _parse_server_option(text: str, item: str) -> tuple[str, str]:
    """Return the name and the value of one option of the server `text`."""
    name, equals, value = item.partition("=")
    valid = {"weight": bool(value), "backup": not equals, "proxy": value in ("v1", "v2")}
    if valid.get(name):
        return name, value
    raise ValueError(
        f"server {text!r}: invalid option {item!r}: expected weight=N, backup, proxy=v1 or proxy=v2"
    )
