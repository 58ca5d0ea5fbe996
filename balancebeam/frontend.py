"""The listening sockets of one frontend, as a service."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from balancebeam import transport
from balancebeam.doors.http import BalancerSite
from balancebeam.doors.proxied import ProxiedSite
from balancebeam.doors.tcp import TcpSite
from balancebeam.errors import StartError
from balancebeam.model import (
    EndpointAddress,
    ListenAddress,
    ProxiedAddress,
    TcpAddress,
    UnixAddress,
)


class FrontendService(service.Service):
    """
    Listens at `addresses` for the clients of `site`.

    It does so in `privilegedStartService`, so that `twistd --uid` may use low
    ports. Raises `StartError` if an address cannot be had; then none is kept.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        addresses: Sequence[ListenAddress],
        site: BalancerSite | TcpSite,
        reactor: Any,
        data_reactor: Any,
    ) -> None:
        self.name = f"frontend:{name}"
        self.site = site
        self.ports: list[IListeningPort] = []
        self._addresses = addresses
        self._endpoints = {
            place: _endpoint(place, reactor)
            for place in map(_place, addresses)
            if isinstance(place, EndpointAddress)
        }
        self._proxied: ProxiedSite | None = None
        if any(isinstance(address, ProxiedAddress) for address in addresses):
            self._proxied = ProxiedSite(site)
        self._data_reactor = data_reactor
        self._listening = False

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._listen()

    def _listen(self) -> None:
        if self._listening:
            return
        self._listening = True
        problems = []
        for address in self._addresses:
            try:
                self._listen_at(address)
            except (CannotListenError, OSError, ValueError) as error:
                problems.append(f"--bind {address}: {_why(error)}")
        if problems:
            self._stop_listening().addErrback(
                lambda failure: self._log.failure("while closing listeners", failure)
            )
            _speak_plainly()
            raise StartError("\n".join(f"balancebeam: {problem}" for problem in problems))

    def _listen_at(self, address: ListenAddress) -> None:
        place = _place(address)
        factory: Any = self._proxied if isinstance(address, ProxiedAddress) else self.site
        if not isinstance(place, EndpointAddress):
            self.ports.append(transport.listen(place, factory, self._data_reactor))
            return
        failures: list[BaseException] = []
        self._endpoints[place].listen(factory).addCallbacks(
            self.ports.append, lambda failure: failures.append(failure.value)
        )
        # Endpoints that listen say so at once; a failure is raised from here
        # so that it ends the start like that of any other address.
        if failures:
            raise OSError(str(failures[0])) from failures[0]

    def _stop_listening(self) -> Deferred[Any]:
        self._listening = False
        ports, self.ports = self.ports, []
        return DeferredList(
            [maybeDeferred(port.stopListening) for port in ports], consumeErrors=False
        )

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        stopped = self._stop_listening()
        self.site.close_all()
        return stopped


def _place(address: ListenAddress) -> TcpAddress | UnixAddress | EndpointAddress:
    return address.address if isinstance(address, ProxiedAddress) else address


def _speak_plainly() -> None:
    """
    Have the error that ends the program seen as it is. By now `twistd` sends
    stderr to its log, which is right for a daemon only.
    """
    if sys.__stderr__ is not None and os.fstat(2).st_rdev != os.stat(os.devnull).st_rdev:
        sys.stderr = sys.__stderr__


def _endpoint(address: EndpointAddress, reactor: Any) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, address.description)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise StartError(
            f"balancebeam: --bind: {address} is no endpoint description: {error}"
        ) from error
    return endpoint


def _why(error: Exception) -> str:
    """The reason in the operating system's words, with what would help."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    text = getattr(reason, "strerror", None) or str(reason)
    return f"{text[:1].lower()}{text[1:]}; give another address or stop what uses it"
