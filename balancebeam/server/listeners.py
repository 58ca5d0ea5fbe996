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
PLAIN = ("tcp:", "tcp4:", "tcp6:")

Place = Union[TcpAddress, UnixAddress, EndpointAddress]


class Clients(Interface):
    """Who makes protocols for clients."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of the client at `addr`."""


@frozen
class Inherited:
    """
    The `descriptor` of a socket that listens. One that is `keep_path` has a name
    in the file system that is somebody else's to remove.
    """

    descriptor: int
    keep_path: bool


class Entrance(ServerFactory):
    """Lets the clients of one listening socket in to `clients`, who may change."""

    noisy = False

    def __init__(self) -> None:
        self.clients: Clients | None = None
        self.port: IListeningPort | None = None

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        if self.clients is None:
            return None
        protocol: IProtocol | None = self.clients.buildProtocol(addr)
        return protocol


class ListenersService(service.Service):
    """
    Listens, and can listen at other addresses later.

    Sockets that a predecessor or the system's manager has handed over are used
    where they fit: `inherit` finds them, by address. `entrances` go by place,
    whatever clients begin with there.
    """

    name = "listeners"
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        data_reactor: Any,
        inherit: Callable[[], Mapping[str, Inherited]] | None = None,
    ) -> None:
        self.entrances: dict[Place, Entrance] = {}
        self._reactor = reactor
        self._data_reactor = data_reactor
        self._inherit = inherit
        self._inherited: dict[str, Inherited] = {}
        # The place that only who runs this may connect to, if it is in the file system.
        self.private: Place | None = None
        # Unix sockets that a predecessor would still remove, if it went on.
        self._bequeathed: list[Any] = []

    def open(
        self, wanted: Iterable[ListenAddress], said: Mapping[str, str] | None = None
    ) -> dict[Place, Entrance]:
        """
        Listen at those of the addresses that are `wanted` where it does not
        yet. Raises `StartupError` if one cannot be had, with where their texts
        were `said`; then none is kept.
        """
        said = said or {}
        inherit, self._inherit = self._inherit, None
        if inherit is not None:
            self._inherited = dict(inherit())
        opened: dict[Place, Entrance] = {}
        problems = []
        places = {place_of(address): address for address in wanted}
        for place, address in places.items():
            if place in self.entrances:
                continue
            entrance = Entrance()
            try:
                entrance.port = self._listen(place, entrance)
            except (CannotListenError, OSError, ValueError) as error:
                where = said.get(str(address), "--bind")
                problems.append(f"{where} {address}: {_why(error)}")
            else:
                opened[place] = entrance
        if not any(str(place).startswith("systemd:") for place in places):
            self._disclaim()
        if problems:
            self._close(opened.values())
            raise StartupError.from_problems(problems)
        return opened

    def use(self, clients: Mapping[ListenAddress, Clients], opened: Mapping[Any, Entrance]) -> None:
        """
        Let clients in at these addresses, of which those that are new have been
        `opened`, and at no others.
        """
        entrances = {**self.entrances, **opened}
        served = {place_of(address): who for address, who in clients.items()}
        for place, who in served.items():
            entrances[place].clients = who
        self.entrances = {place: entrances[place] for place in served}
        # Who waits to be accepted there is let in by those who served it so far.
        self._close(entrances[place] for place in entrances if place not in served)

    def hand_over(self) -> tuple[dict[str, Inherited], Sequence[str]]:
        """
        The sockets for a successor to listen with, by address; and the
        addresses of those that nobody else can use.
        """
        found, stuck = {}, []
        for place, entrance in self.entrances.items():
            port: Any = entrance.port
            if isinstance(place, EndpointAddress) and not place.description.startswith(PLAIN):
                stuck.append(str(place))
            else:
                found[str(place)] = Inherited(port.fileno(), getattr(port, "keep_path", False))
        return found, stuck

    def bequeath(self) -> None:
        """Somebody else listens with these sockets now, and removes them in the end."""
        for entrance in self.entrances.values():
            port: Any = entrance.port
            # Those of endpoints would have the socket end for all.
            port._shouldShutdown = False
            port.keep_path = True

    def own(self) -> None:
        """The predecessor has been told to go: what it would have removed is ours to remove."""
        for port in self._bequeathed:
            port.keep_path = False
        self._bequeathed = []

    def close(self) -> Deferred[Any]:
        """Listen no more."""
        entrances, self.entrances = self.entrances, {}
        return self._close(entrances.values())

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.close()

    def _close(self, entrances: Iterable[Entrance]) -> Deferred[Any]:
        ports = [entrance.port for entrance in entrances if entrance.port is not None]
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        return closed.addErrback(lambda failure: self._log.failure("while closing", failure))

    def _listen(self, place: Place, entrance: Entrance) -> IListeningPort:
        inherited = self._claim(place)
        if inherited is not None:
            adopted = ports.adopt_listening_socket(
                inherited.descriptor, entrance, self._data_reactor
            )
            if not inherited.keep_path:
                self._bequeathed.append(adopted)
            return adopted
        if not isinstance(place, EndpointAddress):
            mode = 0o600 if place == self.private else 0o666
            return ports.listen(place, entrance, self._data_reactor, mode)
        try:
            endpoint = serverFromString(self._reactor, place.description)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"it is no endpoint description: {error}") from error
        outcome: list[Any] = []
        endpoint.listen(entrance).addBoth(outcome.append)
        # Endpoints that listen say so at once; a failure is raised from here
        # so that it ends the start like that of any other address.
        if not outcome or not IListeningPort.providedBy(outcome[0]):
            raise OSError(outcome[0].getErrorMessage() if outcome else "it takes too long")
        port: IListeningPort = outcome[0]
        return port

    def _claim(self, place: Place) -> Inherited | None:
        """The socket that was handed over for `place`, if there is one."""
        found = self._inherited.pop(str(place), None)
        if found is None and isinstance(place, TcpAddress) and place.host == "0.0.0.0":
            # What the service manager makes of "ListenStream=1100".
            both = str(TcpAddress("::", place.port))
            if both in self._inherited and _speaks_both(self._inherited[both].descriptor):
                found = self._inherited.pop(both)
        return found

    def _disclaim(self) -> None:
        """Close what was handed over for nothing: who connects there would wait for ever."""
        unwanted, self._inherited = self._inherited, {}
        for address, inherited in unwanted.items():
            self._log.warn("nobody is to listen at {address} any more", address=address)
            os.close(inherited.descriptor)


def place_of(address: ListenAddress) -> Place:
    """Where to listen, whatever clients begin with."""
    return address.address if isinstance(address, ProxyProtocolAddress) else address


def _speaks_both(descriptor: int) -> bool:
    """Whether a socket for IPv6 takes IPv4 as well."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        return not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def speak_plainly() -> None:
    """
    Have the error that ends the program seen as it is. By now `twistd` sends
    stderr to its log, which is right for a daemon only.
    """
    if sys.__stderr__ is not None and os.fstat(2).st_rdev != os.stat(os.devnull).st_rdev:
        sys.stderr = sys.__stderr__


def check_endpoint(address: ListenAddress, reactor: Any) -> None:
    """Raise `StartupError` if `address` is a description that no endpoint can be made of."""
    place = place_of(address)
    if isinstance(place, EndpointAddress):
        try:
            serverFromString(reactor, place.description)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise StartupError.from_problems(
                [f"--bind: {address} is no endpoint description: {error}"]
            ) from error


def _why(error: Exception) -> str:
    """The reason in the operating system's words, with what would help."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    text = getattr(reason, "strerror", None) or str(reason)
    return f"{text[:1].lower()}{text[1:]}; give another address or stop what uses it"
