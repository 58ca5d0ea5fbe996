"""DNS resolver with a short cache for the host names of servers."""

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

# Seconds for which the addresses of a name are cached. Connections are reused, so lookups
# are rare; and a service may move to other addresses at any time.
CACHE_TTL = 5.0


@implementer(IResolutionReceiver)
class _ResolutionReceiver:
    """Collects the addresses of one name, and fires `done` with them."""

    def __init__(self, done: Deferred[list[str]], name: str) -> None:
        self._done = done
        self._name = name
        self._hosts: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """The lookup has started."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, (IPv4Address, IPv6Address)):
            self._hosts.append(address.host)

    def resolutionComplete(self) -> None:
        if self._hosts:
            self._done.callback(self._hosts)
        else:
            self._done.errback(DNSLookupError(f"no address found for {self._name}"))


class Resolver:
    """Resolves names with the resolver of the reactor, and caches the addresses."""

    def __init__(self, reactor: Any, ticker: Ticker) -> None:
        """
        Args:
            reactor: An `IReactorPluggableNameResolver`.
            ticker: Clock of the cache.
        """
        self._reactor = reactor
        self._ticker = ticker
        # By name: when the lookup ended, and the addresses.
        self._cache: dict[str, tuple[float, list[str]]] = {}
        # By name: the callers of the lookup in progress.
        self._pending: dict[str, list[Deferred[list[str]]]] = {}

    def resolve(
        self, address: ServerAddress
    ) -> list[ServerAddress] | Deferred[list[ServerAddress]]:
        """
        Resolve the host of `address`.

        Returns:
            The addresses to connect to: a list if they are known without a lookup, or
            else a Deferred, which fails with `DNSLookupError`.
        """
        if not isinstance(address, TcpAddress) or _is_literal(address.host):
            return [address]
        port = address.port
        cached = self._cache.get(address.host)
        if cached is not None and self._ticker.now - cached[0] < CACHE_TTL:
            return [TcpAddress(host, port) for host in cached[1]]
        return self._lookup(address.host).addCallback(
            lambda hosts: [TcpAddress(host, port) for host in hosts]
        )

    def _lookup(self, name: str) -> Deferred[list[str]]:
        """Look `name` up; concurrent callers share one lookup."""
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
    """Whether `host` is an IP address; cached, as servers are few and connects many."""
    return isIPAddress(host) or isIPv6Address(host)
