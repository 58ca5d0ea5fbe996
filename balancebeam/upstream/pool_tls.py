"""TLS of the connections of one pool: which servers use it, in which context, by which name."""

from __future__ import annotations

from balancebeam.core.addresses import UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
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
from balancebeam.upstream.server import Server

# Any address: stands for a server whose own settings do not enable TLS.
_PLAIN_SERVER = ServerSettings(UnixAddress("/"))


class PoolTls:
    """
    TLS of one pool, as far as its settings enable it.

    Attributes:
        client: the context of all its connections; `None` until a server uses TLS.
    """

    def __init__(self, pool: PoolSettings, client: ClientContext | None = None) -> None:
        """
        Args:
            pool: the settings of the pool.
            client: the context, built by `read`.
        """
        self.client = client
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
        if not servers and pool.tls is None:
            return cls(pool)
        settings = pool.tls or PoolTlsSettings()
        try:
            client = build_client_context(settings)
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
        return cls(pool, client)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems that do not prevent the use of the context."""
        return () if self.client is None else self.client.warnings

    def find(self, server: Server) -> ServerTls | None:
        """Return TLS for a new connection to `server`; `None` for a connection without TLS."""
        if not self._all_servers and not server.uses_tls:
            return None
        if server.source is ServerSource.DEMO:
            # A demo server is part of this process.
            return None
        if self.client is None:
            # The server was registered at run time, and the pool has no settings of TLS. Only
            # the CA certificates of the system are read.
            self.client = build_client_context(self._settings)
        context = self.client.context
        name = server_hostname(self._settings, server.address)
        tls = server.tls
        if tls is None or tls.context is not context or tls.server_hostname != name:
            tls = server.tls = ServerTls(context, name)
        return tls


def read_all_tls(
    pools: tuple[PoolSettings, ...], current: dict[str, PoolTls]
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
