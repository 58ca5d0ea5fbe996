"""TODO."""

from __future__ import annotations

from typing import Union

from attrs import frozen


@frozen
class TcpAddress:
    """A host (a name, an IPv4 or an IPv6 address without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def as_config(self) -> str:
        """Return the text that `parse_server_address` parses as this address."""
        # "unix:80" would be parsed as the path of a socket.
        return f"http://{self}" if self.host == "unix" else str(self)


@frozen
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def as_config(self) -> str:
        """Return the text that `parse_server_address` parses as this address."""
        return str(self)


@frozen
class EndpointAddress:
    """A place to listen, as a Twisted server endpoint description."""

    description: str

    def __str__(self) -> str:
        return self.description


@frozen
class ProxyProtocolAddress:
    """
    A place to listen for proxies, each of whose connections begins with a
    header of the PROXY protocol.
    """

    address: TcpAddress | UnixAddress | EndpointAddress

    def __str__(self) -> str:
        return f"haproxy:{self.address}"


ServerAddress = Union[TcpAddress, UnixAddress]


ListenAddress = Union[TcpAddress, UnixAddress, EndpointAddress, ProxyProtocolAddress]
