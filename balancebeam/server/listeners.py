"""The listening sockets of all frontends, as a service."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, Union
from typing import Protocol as Interface

from attrs import frozen
from twisted.application import service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
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
from balancebeam.core.errors import StartupError
from balancebeam.net import listening as ports

# Descriptions of endpoints that are nothing but a socket.
PLAIN_ENDPOINT_PREFIXES = ("tcp:", "tcp4:", "tcp6:")

BindAddress = Union[TcpAddress, UnixAddress, EndpointAddress]


class ConnectionFactory(Interface):
    """Who makes protocols for clients."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of the client at `addr`."""


@frozen
class InheritedSocket:
    """
    The `fd` of a socket that listens. One that is `keep_path` has a name
    in the file system that is somebody else's to remove.
    """

    fd: int
    keep_path: bool


class Listener(ServerFactory):
    """Lets the clients of one listening socket in to `factory`, who may change."""

    noisy = False

    def __init__(self) -> None:
        self.factory: ConnectionFactory | None = None
        self.port: IListeningPort | None = None

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        if self.factory is None:
            return None
        protocol: IProtocol | None = self.factory.buildProtocol(addr)
        return protocol


class ListenersService(service.Service):
    """
    Listens, and can listen at other addresses later.

    Sockets that a predecessor or the system's manager has handed over are used
    where they fit: `find_inherited_sockets` finds them, by address. `listeners` go by place,
    whatever clients begin with there.
    """

    name = "listeners"
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        data_reactor: Any,
        find_inherited_sockets: Callable[[], Mapping[str, InheritedSocket]] | None = None,
    ) -> None:
        self.listeners: dict[BindAddress, Listener] = {}
        self._reactor = reactor
        self._data_reactor = data_reactor
        self._find_inherited_sockets = find_inherited_sockets
        self._inherited: dict[str, InheritedSocket] = {}
        # The place that only who runs this may connect to, if it is in the file system.
        self.owner_only_address: BindAddress | None = None
        # Unix sockets that a predecessor would still remove, if it went on.
        self._unowned_ports: list[Any] = []

    def bind(
        self, addresses: Iterable[ListenAddress], locations: Mapping[str, str] | None = None
    ) -> dict[BindAddress, Listener]:
        """
        Listen at those of the addresses in `addresses` where it does not
        yet. Raises `StartupError` if one cannot be had, with where their texts
        were in `locations`; then none is kept.
        """
        locations = locations or {}
        inherit, self._find_inherited_sockets = self._find_inherited_sockets, None
        if inherit is not None:
            self._inherited = dict(inherit())
        opened: dict[BindAddress, Listener] = {}
        problems = []
        places = {bind_address(address): address for address in addresses}
        for place, address in places.items():
            if place in self.listeners:
                continue
            listener = Listener()
            try:
                listener.port = self._listen(place, listener)
            except (CannotListenError, OSError, ValueError) as error:
                where = locations.get(str(address), "--bind")
                problems.append(f"{where} {address}: {_describe_bind_error(error)}")
            else:
                opened[place] = listener
        if not any(str(place).startswith("systemd:") for place in places):
            self._close_unused_inherited()
        if problems:
            self._close(opened.values())
            raise StartupError.from_problems(problems)
        return opened

    def activate(
        self, factories: Mapping[ListenAddress, ConnectionFactory], bound: Mapping[Any, Listener]
    ) -> None:
        """
        Let clients in at these addresses, of which those that are new have been
        `bound`, and at no others.
        """
        listeners = {**self.listeners, **bound}
        served = {bind_address(address): who for address, who in factories.items()}
        for place, who in served.items():
            listeners[place].factory = who
        self.listeners = {place: listeners[place] for place in served}
        # Who waits to be accepted there is let in by those who served it so far.
        self._close(listeners[place] for place in listeners if place not in served)

    def export_sockets(self) -> tuple[dict[str, InheritedSocket], Sequence[str]]:
        """
        The sockets for a successor to listen with, by address; and the
        addresses of those that nobody else can use.
        """
        found, stuck = {}, []
        for place, listener in self.listeners.items():
            port: Any = listener.port
            if isinstance(place, EndpointAddress) and not place.description.startswith(
                PLAIN_ENDPOINT_PREFIXES
            ):
                stuck.append(str(place))
            else:
                found[str(place)] = InheritedSocket(
                    port.fileno(), getattr(port, "keep_path", False)
                )
        return found, stuck

    def disown_socket_files(self) -> None:
        """Somebody else listens with these sockets now, and removes them in the end."""
        for listener in self.listeners.values():
            port: Any = listener.port
            # Those of endpoints would have the socket end for all.
            port._shouldShutdown = False
            port.keep_path = True

    def own_socket_files(self) -> None:
        """The predecessor has been told to go: what it would have removed is ours to remove."""
        for port in self._unowned_ports:
            port.keep_path = False
        self._unowned_ports = []

    def close(self) -> Deferred[Any]:
        """Listen no more."""
        listeners, self.listeners = self.listeners, {}
        return self._close(listeners.values())

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.close()

    def _close(self, listeners: Iterable[Listener]) -> Deferred[Any]:
        ports = [listener.port for listener in listeners if listener.port is not None]
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        return closed.addErrback(lambda failure: self._log.failure("while closing", failure))

    def _listen(self, address: BindAddress, listener: Listener) -> IListeningPort:
        inherited = self._take_inherited(address)
        if inherited is not None:
            adopted = ports.adopt_listening_socket(inherited.fd, listener, self._data_reactor)
            if not inherited.keep_path:
                self._unowned_ports.append(adopted)
            return adopted
        if not isinstance(address, EndpointAddress):
            mode = 0o600 if address == self.owner_only_address else 0o666
            return ports.listen(address, listener, self._data_reactor, mode)
        try:
            endpoint = serverFromString(self._reactor, address.description)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"it is no endpoint description: {error}") from error
        outcome: list[Any] = []
        endpoint.listen(listener).addBoth(outcome.append)
        # Endpoints that listen say so at once; a failure is raised from here
        # so that it ends the start like that of any other address.
        if not outcome or not IListeningPort.providedBy(outcome[0]):
            raise OSError(outcome[0].getErrorMessage() if outcome else "it takes too long")
        port: IListeningPort = outcome[0]
        return port

    def _take_inherited(self, address: BindAddress) -> InheritedSocket | None:
        """The socket that was handed over for `address`, if there is one."""
        found = self._inherited.pop(str(address), None)
        if found is None and isinstance(address, TcpAddress) and address.host == "0.0.0.0":
            # What the service manager makes of "ListenStream=1100".
            both = str(TcpAddress("::", address.port))
            if both in self._inherited and _is_dual_stack(self._inherited[both].fd):
                found = self._inherited.pop(both)
        return found

    def _close_unused_inherited(self) -> None:
        """Close what was handed over for nothing: who connects there would wait for ever."""
        unwanted, self._inherited = self._inherited, {}
        for address, inherited in unwanted.items():
            self._log.warn("nobody is to listen at {address} any more", address=address)
            os.close(inherited.fd)


def bind_address(address: ListenAddress) -> BindAddress:
    """Where to listen, whatever clients begin with."""
    return address.address if isinstance(address, ProxyProtocolAddress) else address


def _is_dual_stack(descriptor: int) -> bool:
    """Whether a socket for IPv6 takes IPv4 as well."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        return not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def restore_stderr() -> None:
    """
    Have the error that ends the program seen as it is. By now `twistd` sends
    stderr to its log, which is right for a daemon only.
    """
    if sys.__stderr__ is not None and os.fstat(2).st_rdev != os.stat(os.devnull).st_rdev:
        sys.stderr = sys.__stderr__


def validate_endpoint(address: ListenAddress, reactor: Any) -> None:
    """Raise `StartupError` if `address` is a description that no endpoint can be made of."""
    place = bind_address(address)
    if isinstance(place, EndpointAddress):
        try:
            serverFromString(reactor, place.description)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise StartupError.from_problems(
                [f"--bind: {address} is no endpoint description: {error}"]
            ) from error


def _describe_bind_error(error: Exception) -> str:
    """The reason in the operating system's words, with what would help."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    text = getattr(reason, "strerror", None) or str(reason)
    return f"{text[:1].lower()}{text[1:]}; give another address or stop what uses it"
