"""Addresses of servers and of listeners; `str` gives the form used in configurations."""

from __future__ import annotations

from typing import Union

from attrs import frozen


@frozen
class TcpAddress:
    """
    A TCP address.

    Attributes:
        host: a host name, an IPv4 address, or an IPv6 address without brackets.
        port: the port number.
    """

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
    """
    A Unix socket.

    Attributes:
        path: the path of the socket file.
    """

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def as_config(self) -> str:
        """Return the text that `parse_server_address` parses as this address."""
        return str(self)


@frozen
class EndpointAddress:
    """
    A listen address in Twisted's own form.

    Attributes:
        description: a server endpoint description, such as "tcp:80:interface=::1".
    """

    description: str

    def __str__(self) -> str:
        return self.description


@frozen
class ProxyProtocolAddress:
    """
    A listen address whose connections begin with a header of the PROXY protocol.

    Attributes:
        address: the address to bind.
    """

    address: TcpAddress | UnixAddress | EndpointAddress

    def __str__(self) -> str:
        return f"haproxy:{self.address}"


# The address of an upstream server.
ServerAddress = Union[TcpAddress, UnixAddress]

# An address at which clients connect.
ListenAddress = Union[TcpAddress, UnixAddress, EndpointAddress, ProxyProtocolAddress]
