"""
The listening sockets of all frontends and of the admin API.

A socket is known by its bind address, so that a reload keeps the socket while
frontends, modes and the PROXY protocol change. Binding and activation are separate
steps, as a reload must be able to fail before anything changes.
"""

from __future__ import annotations

import os
import socket
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Union

from attrs import frozen
from twisted.application import service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.errors import ConfigError, describe_os_error
from balancebeam.net import listening
from balancebeam.net.interfaces import DataReactor
from balancebeam.server.endpoints import PLAIN_ENDPOINT_PREFIXES, listen_on_endpoint

BindAddress = Union[TcpAddress, UnixAddress, EndpointAddress]

# File modes of Unix sockets: any local user may connect, or only the user that runs
# this process.
_PUBLIC_MODE, _OWNER_ONLY_MODE = 0o666, 0o600


class ConnectionFactory(typing.Protocol):
    """Builds the protocols of accepted connections."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol for the client at `addr`; `None` closes the connection."""


@frozen
class InheritedSocket:
    """
    A listening socket that another process has opened.

    Attributes:
        fd: the file descriptor.
        keep_path: whether another process owns the file of a Unix socket, so that
            this process must not unlink it.
    """

    fd: int
    keep_path: bool


class Listener(ServerFactory):
    """
    The factory of one listening socket. It delegates to a factory that a reload may replace.

    Attributes:
        factory: the current factory; without one, connections are closed.
        port: the Twisted port of the socket.
        limit: the connection limit of the frontend that owns the socket, which pauses it.
    """

    noisy = False

    def __init__(self) -> None:
        self.factory: ConnectionFactory | None = None
        self.port: IListeningPort | None = None
        self.limit: object = None

    def set_accepting(self, accepting: bool) -> None:
        """Accept connections, or leave them in the listen queue."""
        port: Any = self.port
        if port is None or not port.connected:
            return
        if isinstance(port, listening.ImmediateCloseMixin):
            (port.resume_accepting if accepting else port.pause_accepting)()
        elif accepting:
            port.startReading()
        else:
            port.stopReading()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]  # addr may be None
        if self.factory is None:
            return None
        protocol: IProtocol | None = self.factory.buildProtocol(addr)
        return protocol


class ListenersService(service.Service):
    """
    Binds, activates and closes listeners.

    Attributes:
        listeners: the active listeners by bind address.
        owner_only_address: the bind address of the admin API; if it is a Unix
            socket, only the user of this process may connect.
    """

    name = "listeners"
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        data_reactor: DataReactor,
        find_inherited_sockets: Callable[[], Mapping[str, InheritedSocket]] | None = None,
    ) -> None:
        """
        Args:
            reactor: the reactor for endpoint descriptions.
            data_reactor: the reactor for all other listeners.
            find_inherited_sockets: returns inherited sockets by the text of their
                address; called by the first `bind`.
        """
        self.listeners: dict[BindAddress, Listener] = {}
        self.owner_only_address: BindAddress | None = None
        self._reactor = reactor
        self._data_reactor = data_reactor
        self._find_inherited_sockets = find_inherited_sockets
        self._inherited: dict[str, InheritedSocket] = {}
        # Ports of inherited Unix sockets whose files the old process would unlink if
        # this process failed to start.
        self._unowned_ports: list[Any] = []

    def bind(
        self, addresses: Iterable[ListenAddress], locations: Mapping[str, str] | None = None
    ) -> dict[BindAddress, Listener]:
        """
        Bind the addresses that have no listener yet.

        Args:
            addresses: all addresses of the new configuration.
            locations: the option or the place in a file for the text of an
                address, for error messages; `--bind` by default.

        Returns:
            The new listeners, which have no factory before `activate`.

        Raises:
            ConfigError: an address is not available; nothing stays bound.
        """
        locations = locations or {}
        find_inherited_sockets, self._find_inherited_sockets = self._find_inherited_sockets, None
        if find_inherited_sockets is not None:
            self._inherited = dict(find_inherited_sockets())
        bound: dict[BindAddress, Listener] = {}
        problems = []
        by_bind_address = {bind_address(address): address for address in addresses}
        for bind, address in by_bind_address.items():
            if bind in self.listeners:
                continue
            listener = Listener()
            try:
                listener.port = self._listen(bind, listener)
            except (CannotListenError, OSError, ValueError) as error:
                location = locations.get(str(address), "--bind")
                problems.append(f"{location} {address}: {_describe_bind_error(error)}")
            else:
                bound[bind] = listener
        # A "systemd:" endpoint adopts inherited descriptors by itself.
        if not any(str(bind).startswith("systemd:") for bind in by_bind_address):
            self._close_unused_inherited()
        if problems:
            self.discard(bound)
            raise ConfigError(*problems)
        return bound

    def discard(self, bound: Mapping[BindAddress, Listener]) -> None:
        """Close listeners that `bind` has returned and that will not be activated."""
        self._close(bound.values())

    def activate(
        self,
        factories: Mapping[ListenAddress, ConnectionFactory],
        bound: Mapping[BindAddress, Listener],
    ) -> None:
        """
        Activate the listeners in `factories` and close all other listeners.

        Args:
            factories: the connection factory of every address.
            bound: the listeners that `bind` has returned for new addresses.
        """
        listeners = {**self.listeners, **bound}
        by_bind_address = {bind_address(address): factory for address, factory in factories.items()}
        for bind, factory in by_bind_address.items():
            listeners[bind].factory = factory
        self.listeners = {bind: listeners[bind] for bind in by_bind_address}
        # Closing accepts the connections in the listen queue; they belong to the factory
        # that was active until now.
        self._close(listeners[bind] for bind in listeners if bind not in by_bind_address)

    def export_sockets(self) -> tuple[dict[str, InheritedSocket], Sequence[str]]:
        """
        List the sockets for the new process of a hot restart.

        Returns:
            The sockets by the text of their address, and the addresses whose sockets
            cannot be transferred.
        """
        sockets, not_transferable = {}, []
        for bind, listener in self.listeners.items():
            port: Any = listener.port
            if isinstance(bind, EndpointAddress) and not bind.description.startswith(
                PLAIN_ENDPOINT_PREFIXES
            ):
                not_transferable.append(str(bind))
            else:
                # Ports of endpoints are Twisted's own, without `keep_path`.
                sockets[str(bind)] = InheritedSocket(
                    port.fileno(), getattr(port, "keep_path", False)
                )
        return sockets, not_transferable

    def with_real_port(self, address: ListenAddress) -> ListenAddress:
        """Return `address` with the port that the kernel has chosen for port 0."""
        bound = bind_address(address)
        listener = self.listeners.get(bound)
        if not isinstance(bound, TcpAddress) or bound.port != 0 or listener is None:
            return address
        port: Any = listener.port
        real = TcpAddress(bound.host, port.getHost().port)
        return ProxyProtocolAddress(real) if isinstance(address, ProxyProtocolAddress) else real

    def disown_socket_files(self) -> None:
        """Leave the sockets and their files to the new process of a hot restart."""
        for listener in self.listeners.values():
            port: Any = listener.port
            # Twisted's ports would shut the shared socket down for the new process too.
            port._shouldShutdown = False
            port.keep_path = True

    def own_socket_files(self) -> None:
        """
        Take ownership of inherited Unix socket files: this process unlinks them
        when it stops listening.
        """
        for port in self._unowned_ports:
            port.keep_path = False
        self._unowned_ports = []

    def close(self) -> Deferred[Any]:
        """Close all listeners."""
        listeners, self.listeners = self.listeners, {}
        return self._close(listeners.values())

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.close()

    def _close(self, listeners: Iterable[Listener]) -> Deferred[Any]:
        ports = [listener.port for listener in listeners if listener.port is not None]
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        return closed.addErrback(
            lambda failure: self._log.failure("cannot close a listener", failure)
        )

    def _listen(self, address: BindAddress, listener: Listener) -> IListeningPort:
        """Adopt an inherited socket or bind a new one."""
        inherited = self._take_inherited(address)
        if inherited is not None:
            adopted = listening.adopt_listening_socket(inherited.fd, listener, self._data_reactor)
            if not inherited.keep_path:
                self._unowned_ports.append(adopted)
            return adopted
        if isinstance(address, EndpointAddress):
            return listen_on_endpoint(address, listener, self._reactor)
        mode = _OWNER_ONLY_MODE if address == self.owner_only_address else _PUBLIC_MODE
        return listening.listen(address, listener, self._data_reactor, mode)

    def _take_inherited(self, address: BindAddress) -> InheritedSocket | None:
        """Remove and return the inherited socket for `address`, if there is one."""
        inherited = self._inherited.pop(str(address), None)
        if inherited is None and isinstance(address, TcpAddress) and address.host == "0.0.0.0":
            # systemd binds [::] for "ListenStream=1100", for IPv4 as well.
            any_address = str(TcpAddress("::", address.port))
            if any_address in self._inherited and _is_dual_stack(self._inherited[any_address].fd):
                inherited = self._inherited.pop(any_address)
        return inherited

    def _close_unused_inherited(self) -> None:
        """
        Close inherited sockets that are no longer configured. Otherwise the kernel
        would accept connections that no process serves.
        """
        unused, self._inherited = self._inherited, {}
        for address, inherited in unused.items():
            self._log.warn("closing inherited socket {address}: not configured", address=address)
            os.close(inherited.fd)


def bind_address(address: ListenAddress) -> BindAddress:
    """The address of the socket, without the PROXY protocol."""
    return address.address if isinstance(address, ProxyProtocolAddress) else address


def _is_dual_stack(fd: int) -> bool:
    """Whether an IPv6 socket accepts IPv4 connections as well."""
    with socket.socket(fileno=os.dup(fd)) as listening_socket:
        return not listening_socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _describe_bind_error(error: Exception) -> str:
    """The text of the operating system, in lower case, with the remedy."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    return f"{describe_os_error(reason)}; use another address or stop the process that uses it"
