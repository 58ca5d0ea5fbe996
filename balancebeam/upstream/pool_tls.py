"""TLS of the connections of one pool: which servers use it, in which context, by which name."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping

from balancebeam.core.addresses import UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    HTTP2,
    PoolSettings,
    PoolTlsSettings,
    ServerSettings,
    ServerSource,
)
from balancebeam.tls.client_contexts import (
    ClientContext,
    ServerTls,
    build_client_context,
    server_hostname,
)
from balancebeam.tls.signatures import Signatures, file_signatures
from balancebeam.upstream.server import Server

# Any address: stands for a server whose own settings do not enable TLS.
_PLAIN_SERVER = ServerSettings(UnixAddress("/"))


class PoolTls:
    """
    TLS of one pool, as far as its settings enable it.

    Attributes:
        client: the context of all its connections; `None` until a server uses TLS.
        seen: the state of the files when they were last read, with or without success.
    """

    def __init__(
        self, pool: PoolSettings, client: ClientContext | None = None, seen: Signatures = ()
    ) -> None:
        """
        Args:
            pool: the settings of the pool.
            client: the context, built by `read`.
            seen: the state of the files before they were read.
        """
        self.client = client
        self.seen = seen
        self._pool = pool
        self._settings = pool.tls or PoolTlsSettings()
        self._all_servers = pool.uses_tls(_PLAIN_SERVER)

    @classmethod
    def read(cls, pool: PoolSettings, current: PoolTls | None = None) -> PoolTls:
        """
        Read the files that `pool` names; changes nothing.

        Args:
            pool: the settings of the pool.
            current: what the pool uses now. Its context is kept if neither its settings nor the
                content of its files have changed, so that sessions can be resumed.

        Raises:
            ConfigError: a file cannot be read or is not valid, or a server has no name to verify.
        """
        servers = [server for server in pool.servers if pool.uses_tls(server)]
        has_client = current is not None and current.client is not None
        # A server may have been registered with TLS, or may be registered later.
        if not (servers or pool.tls is not None or has_client):
            return cls(pool)
        settings = pool.tls or PoolTlsSettings()
        seen = file_signatures(_paths(settings))
        try:
            client = build_client_context(settings, _has_http2(pool))
            for server in servers:
                if pool.lacks_server_name(server):
                    raise ConfigError(
                        f"{server.address} has no host name to verify: "
                        "expected server_name, or verify = false"
                    )
        except ConfigError as error:
            problems = (f"pool {pool.name}: tls: {problem}" for problem in error.problems)
            raise ConfigError(*problems) from None
        if current is not None and current.client == client:
            client = current.client
        return cls(pool, client, seen)

    def read_again(self) -> PoolTls | None:
        """
        Read the files again if they have changed since they were last read.

        Blocks: to be called in a thread. Changes nothing but `seen`.

        Returns:
            TLS with the new content; `None` if no file has changed.

        Raises:
            ConfigError: see `read`. The same content raises it only once.
        """
        seen = file_signatures(_paths(self._settings))
        if seen == self.seen:
            return None
        self.seen = seen
        return self.read(self._pool, self)

    @property
    def has_files(self) -> bool:
        """Whether there are files to read again."""
        return bool(self.seen)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems that do not prevent the use of the context."""
        return () if self.client is None else self.client.warnings

    def applies_to(self, server: Server) -> bool:
        """Return whether connections to `server` use TLS."""
        # A demo server is part of this process.
        return (self._all_servers or server.uses_tls) and server.source is not ServerSource.DEMO

    def enable(self) -> None:
        """
        Build the context for a server that is registered with TLS, if there is none yet.

        Only the CA certificates of the system are read, as settings of the pool have their context
        from `read`.
        """
        if self.client is not None:
            return
        try:
            self.client = build_client_context(self._settings, _has_http2(self._pool))
        except ConfigError as error:
            # A context without CA certificates: the verification of every server fails.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.client = ClientContext(context, b"", tuple(error.problems))

    def find(self, server: Server) -> ServerTls | None:
        """Return TLS for a new connection to `server`; `None` for a connection without TLS."""
        if not self.applies_to(server):
            return None
        client = self.client
        # `PoolService` calls `enable` when it gets the first server with TLS.
        assert client is not None
        name = server_hostname(self._settings, server.address)
        http2 = (server.protocol or self._pool.protocol) == HTTP2
        # Without a context of its own, as after a failure to build it, the handshake fails.
        context = (client.http2_context if http2 else None) or client.context
        tls = server.tls
        if (
            tls is None
            or tls.context is not context
            or tls.server_hostname != name
            or tls.http2 is not http2
        ):
            tls = server.tls = ServerTls(context, name, http2)
        return tls


def _has_http2(pool: PoolSettings) -> bool:
    """Whether requests to any server use HTTP/2, now or after it is registered."""
    return pool.protocol == HTTP2 or any(map(pool.uses_http2, pool.servers))


def _paths(settings: PoolTlsSettings) -> Iterator[str]:
    for path in (settings.ca, settings.cert, settings.key):
        if path is not None:
            yield path


def read_all_tls(
    pools: tuple[PoolSettings, ...], current: Mapping[str, PoolTls]
) -> dict[str, PoolTls]:
    """
    Read the files of all pools; see `PoolTls.read`.

    Args:
        pools: the settings of the pools.
        current: what the pools use now, by name.

    Raises:
        ConfigError: with the problems of all pools.
    """
    problems: list[str] = []
    result = {}
    for pool in pools:
        try:
            result[pool.name] = PoolTls.read(pool, current.get(pool.name))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return result
