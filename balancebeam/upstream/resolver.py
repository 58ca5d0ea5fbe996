"""Host names of servers, turned into addresses."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.addresses import ServerAddress, TcpAddress
from balancebeam.net.ticker import Ticker

# For how long an answer is used (seconds). Connections are reused, so names
# are asked for seldom; addresses of a service may change under its name.
CACHE_TTL = 5.0


@implementer(IResolutionReceiver)
class _ResolutionReceiver:
    """Collects the addresses of one name."""

    def __init__(self, done: Deferred[list[str]], name: str) -> None:
        self._done = done
        self._name = name
        self._hosts: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """The question is on its way."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, (IPv4Address, IPv6Address)):
            self._hosts.append(address.host)

    def resolutionComplete(self) -> None:
        if self._hosts:
            self._done.callback(self._hosts)
        else:
            self._done.errback(DNSLookupError(f"no address is known for {self._name}"))


class Resolver:
    """Finds addresses through the reactor's resolver, and keeps them a while."""

    def __init__(self, reactor: Any, ticker: Ticker) -> None:
        self._reactor = reactor
        self._ticker = ticker
        self._cache: dict[str, tuple[float, list[str]]] = {}
        self._pending: dict[str, list[Deferred[list[str]]]] = {}

    def resolve(
        self, address: ServerAddress
    ) -> list[ServerAddress] | Deferred[list[ServerAddress]]:
        """
        Where `address` is: at once if no question has to be asked, otherwise
        a Deferred that fails with `DNSLookupError`.
        """
        if not isinstance(address, TcpAddress) or _is_literal(address.host):
            return [address]
        port = address.port
        known = self._cache.get(address.host)
        if known is not None and self._ticker.now - known[0] < CACHE_TTL:
            return [TcpAddress(host, port) for host in known[1]]
        return self._lookup(address.host).addCallback(
            lambda hosts: [TcpAddress(host, port) for host in hosts]
        )

    def _lookup(self, name: str) -> Deferred[list[str]]:
        """The addresses of `name`; all who ask meanwhile share the question."""
        waiter: Deferred[list[str]] = Deferred()
        waiters = self._pending.get(name)
        if waiters is not None:
            waiters.append(waiter)
            return waiter
        self._pending[name] = [waiter]
        done: Deferred[list[str]] = Deferred()
        done.addCallbacks(
            lambda hosts: self._lookup_succeeded(name, hosts),
            lambda failure: self._lookup_failed(name, failure),
        )
        self._reactor.nameResolver.resolveHostName(_ResolutionReceiver(done, name), name)
        return waiter

    def _lookup_succeeded(self, name: str, hosts: list[str]) -> None:
        self._cache[name] = (self._ticker.now, hosts)
        for waiter in self._pending.pop(name):
            waiter.callback(hosts)

    def _lookup_failed(self, name: str, failure: Failure) -> None:
        for waiter in self._pending.pop(name):
            waiter.errback(failure)


@lru_cache(maxsize=4096)
def _is_literal(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)
