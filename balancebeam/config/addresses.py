"""
Parsers of addresses: of listeners, of servers, and of servers with options.

All of them raise a `ValueError` of the form `invalid <thing> <value>: expected <form>`. Host names
are put in lower case and IPv6 addresses in canonical form, so that equal addresses compare equal.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from attrs import evolve

from balancebeam.config.values import parse_weight
from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import UPSTREAM_PROTOCOLS, ServerSettings

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

# Schemes of server addresses, and their default ports. A TCP service has none.
_DEFAULT_PORTS = {"http": 80, "https": 443, "tls": None}
_TLS_SCHEMES = ("https", "tls")
_ENDS_IN_PORT = re.compile(r":[0-9]+$")

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
            f"unsupported address {text!r}: expected one without TLS; TLS of a frontend is set by "
            "[frontend.tls] or --tls"
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
    Parse the address of a server without TLS, as `ServerAddress.as_config` returns it.

    Args:
        text: `host:port`, `[v6]:port`, `unix:/path`, `http://host` or `http://host:port`.
    """
    server = parse_server_url(text)
    if server.tls:
        raise ValueError(f"invalid address {text!r}: expected one without TLS, {server.address}")
    return server.address


def parse_server_url(text: str) -> ServerSettings:
    """
    Parse the address of a server, with or without a scheme.

    Args:
        text: `host:port`, `[v6]:port`, `unix:/path`, `http://host[:port]`, or for a server with TLS
            `https://host[:port]` or `tls://host:port`. The default port is that of the scheme.

    Returns:
        A server with this address, the scheme, and otherwise the defaults.
    """
    if text.startswith("unix:"):
        return ServerSettings(_parse_unix_address(text))
    scheme, separator, authority = text.partition("://")
    if separator and scheme in _DEFAULT_PORTS:
        port = _DEFAULT_PORTS[scheme]
        authority = authority.rstrip("/")
        if "/" in authority or (port is None and not _ENDS_IN_PORT.search(authority)):
            raise ValueError(
                f"invalid address {text!r}: expected {scheme}://host:port without a path"
            )
        if not _ENDS_IN_PORT.search(authority):
            authority += f":{port}"
        address = parse_tcp_address(authority)
    else:
        scheme = ""
        address = parse_tcp_address(text)
    if address.port == 0:
        raise ValueError(f"invalid address {text!r}: expected a port from 1 to 65535")
    return ServerSettings(address, tls=scheme in _TLS_SCHEMES, source_scheme=scheme or None)


def check_scheme(server: ServerSettings, mode: str) -> None:
    """
    Check that the scheme of the address of `server` is that of a mode.

    Args:
        server: a server of a pool.
        mode: the mode of the pool's frontends, "http" or "tcp".

    Raises:
        ValueError: TLS was configured with the scheme of the other mode.
    """
    scheme, expected = server.source_scheme, tls_scheme(mode)
    if scheme in _TLS_SCHEMES and scheme != expected:
        raise ValueError(
            f"invalid address '{scheme}://{server.address}': "
            f'expected {expected}://{server.address} in mode "{mode}"'
        )


def tls_scheme(mode: str) -> str:
    """Return the scheme of servers with TLS in a mode, "http" or "tcp"."""
    return "tls" if mode == "tcp" else "https"


def parse_server(text: str) -> ServerSettings:
    """Parse `ADDR` with options (see `_parse_server_option`) in any order, after commas."""
    address, comma, rest = text.partition(",")
    options: dict[str, str] = {}
    for item in rest.split(",") if comma else []:
        name, value = _parse_server_option(text, item)
        if name in options:
            raise ValueError(f"invalid server {text!r}: expected {name} once")
        options[name] = value
    server = parse_server_url(address)
    try:
        weight = parse_weight(options.get("weight", "1"))
    except ValueError as error:
        raise ValueError(f"server {text!r}: {error}") from None
    return evolve(
        server,
        weight=weight,
        backup="backup" in options,
        proxy_protocol=_PROXY_VERSIONS[options.get("proxy", "")],
        protocol=options.get("protocol"),
    )


def _parse_server_option(text: str, item: str) -> tuple[str, str]:
    """Return the name and the value of one option of the server `text`."""
    name, equals, value = item.partition("=")
    valid = {
        "weight": bool(value),
        "backup": not equals,
        "proxy": value in ("v1", "v2"),
        "protocol": value in UPSTREAM_PROTOCOLS,
    }
    if valid.get(name):
        return name, value
    raise ValueError(
        f"server {text!r}: invalid option {item!r}: "
        "expected weight=N, backup, proxy=v1, proxy=v2, protocol=h2 or protocol=http/1.1"
    )
