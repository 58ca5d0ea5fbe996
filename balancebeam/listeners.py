"""The listening sockets of all frontends, as a service."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Callable
from typing import Protocol as Interface

from twisted.application import service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from balancebeam import transport
from balancebeam.errors import StartError
from balancebeam.model import (
    EndpointAddress,
    ListenAddress,
    ProxiedAddress,
)


class Clients(Interface):
    """Who makes protocols for clients."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol of the client at `addr`."""


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
    where they fit: `inherit` finds their descriptors, by address.
    """

    name = "listeners"
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        data_reactor: Any,
        inherit: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        self.entrances: dict[ListenAddress, Entrance] = {}
        self._reactor = reactor
        self._data_reactor = data_reactor
        self._inherit = inherit
        self._inherited: dict[str, int] = {}

    def open(self, wanted: Iterable[ListenAddress]) -> dict[ListenAddress, Entrance]:
        """
        Listen at those of the addresses that are `wanted` where it does not
        yet. Raises `StartError` if one cannot be had; then none is kept.
        """
        if self._inherit is not None:
            self._inherited, self._inherit = dict(self._inherit()), None
        opened: dict[ListenAddress, Entrance] = {}
        problems = []
        for address in wanted:
            if address in self.entrances:
                continue
            entrance = Entrance()
            try:
                entrance.port = self._listen(address, entrance)
            except (CannotListenError, OSError, ValueError) as error:
                problems.append(f"--bind {address}: {_why(error)}")
            else:
                opened[address] = entrance
        if problems:
            self._close(opened.values())
            raise StartError.of(problems)
        return opened

    def use(self, clients: Mapping[ListenAddress, Clients], opened: Mapping[Any, Entrance]) -> None:
        """
        Let clients in at these addresses, of which those that are new have been
        `opened`, and at no others.
        """
        entrances = {**self.entrances, **opened}
        for address, entrance in entrances.items():
            entrance.clients = clients.get(address)
        self._close(entrances[address] for address in entrances if address not in clients)
        self.entrances = {address: entrances[address] for address in clients}

    def hand_over(self) -> dict[str, int]:
        """The descriptors of all sockets, for a successor to listen with, by address."""
        found = {}
        for address, entrance in self.entrances.items():
            place = address.address if isinstance(address, ProxiedAddress) else address
            port: Any = entrance.port
            if hasattr(port, "fileno") and port.fileno() >= 0:
                port.handed_over = True
                found[str(place)] = port.fileno()
        return found

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

    def _listen(self, address: ListenAddress, entrance: Entrance) -> IListeningPort:
        place = address.address if isinstance(address, ProxiedAddress) else address
        if not isinstance(place, EndpointAddress):
            descriptor = self._inherited.pop(str(place), None)
            if descriptor is not None:
                return transport.adopt(place, descriptor, entrance, self._data_reactor)
            return transport.listen(place, entrance, self._data_reactor)
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


def speak_plainly() -> None:
    """
    Have the error that ends the program seen as it is. By now `twistd` sends
    stderr to its log, which is right for a daemon only.
    """
    if sys.__stderr__ is not None and os.fstat(2).st_rdev != os.stat(os.devnull).st_rdev:
        sys.stderr = sys.__stderr__


def check_endpoint(address: ListenAddress, reactor: Any) -> None:
    """Raise `StartError` if `address` is a description that no endpoint can be made of."""
    place = address.address if isinstance(address, ProxiedAddress) else address
    if isinstance(place, EndpointAddress):
        try:
            serverFromString(reactor, place.description)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise StartError.of(
                [f"--bind: {address} is no endpoint description: {error}"]
            ) from error


def _why(error: Exception) -> str:
    """The reason in the operating system's words, with what would help."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    text = getattr(reason, "strerror", None) or str(reason)
    return f"{text[:1].lower()}{text[1:]}; give another address or stop what uses it"
