"""What each command asks the balancer for, and what it shows of the answer."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple
from urllib.parse import quote

from balancebeam.cli.admin_address import with_port
from balancebeam.cli.admin_client import Connection
from balancebeam.cli.errors import Misused, Refused, Unreachable
from balancebeam.cli.status import status_table
from balancebeam.cli.terminal import Screen, escape

# The states of a server that gets nothing new.
_IDLING = ("draining", "maintenance")

# Seconds between two looks at a server that is waited for.
_INTERVAL = 0.25


class Done(NamedTuple):
    """What a command has found: for programs, and as lines for a person."""

    data: Any
    text: str


class Commands:
    """Does the commands by asking over `connection`, and shows what comes on `screen`."""

    def __init__(
        self,
        connection: Connection,
        screen: Screen = Screen(),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._connection = connection
        self._screen = screen
        self._monotonic = monotonic
        self._sleep = sleep

    def do(self, wish: Namespace) -> Done:
        """What `wish.command` says. Raises `CommandError`."""
        done: Done = getattr(self, wish.command)(wish)
        return done

    def status(self, wish: Namespace) -> Done:
        servers = self._servers(wish.pool)
        return Done(servers, status_table(servers, time.time(), self._screen))

    def drain(self, wish: Namespace) -> Done:
        return self._change(wish, {"state": "drain"})

    def maintenance(self, wish: Namespace) -> Done:
        return self._change(wish, {"state": "maintenance"})

    def ready(self, wish: Namespace) -> Done:
        return self._change(wish, {"state": "ready"})

    def weight(self, wish: Namespace) -> Done:
        return self._change(wish, {"weight": wish.weight})

    def register(self, wish: Namespace) -> Done:
        path = "/register" if wish.pool is None else f"/upstreams/{_quote(wish.pool)}"
        content = {"address": wish.address}
        if wish.weight is not None:
            content["weight"] = wish.weight
        data = _object(self._connection.ask("POST", path, content))
        text = f"{data.get('server', wish.address)}: registered, weight {data.get('weight')}"
        return Done(data, _line(text))

    def remove(self, wish: Namespace) -> Done:
        pool, address = self._find(wish)
        data = _object(self._connection.ask("DELETE", _path(pool, address)))
        if wish.wait is not None:
            data = {**data, "in_flight": self._wait(pool, data, wish.wait, removed=True)}
        left = data.get("in_flight")
        text = f"removed, when {left} in flight are done" if left else "removed"
        return Done(data, _line(f"{address}: {text}"))

    def reload(self, wish: Namespace) -> Done:
        data = _object(self._connection.ask("POST", "/reload"))
        changed = data.get("changed")
        if not isinstance(changed, list):
            raise _strange()
        lines = [_line(str(one)) for one in changed]
        return Done(data, "".join(lines) or "nothing has changed\n")

    def config(self, wish: Namespace) -> Done:
        text = self._connection.text("/config", "application/toml")
        return Done({"config": text}, escape(text, keep="\n\t"))

    # Servers.

    def _servers(self, pool: str | None = None) -> list[Mapping[str, Any]]:
        path = "/upstreams" if pool is None else f"/upstreams/{_quote(pool)}"
        servers = self._connection.ask("GET", path)
        if not isinstance(servers, list):
            raise _strange()
        return [_object(server) for server in servers]

    def _find(self, wish: Namespace) -> tuple[str, str]:
        """The pool and the address of the server that is meant."""
        address = with_port(wish.address)
        if wish.pool is not None:
            return wish.pool, address
        servers = self._servers()
        pools = sorted({str(one.get("pool")) for one in servers if one.get("address") == address})
        if not pools:
            raise Refused(f"no pool has a server {address}; see balancebeam status")
        if len(pools) > 1:
            raise Misused(f"several pools have {address}; give --pool {' or '.join(pools)}")
        return pools[0], address

    def _change(self, wish: Namespace, content: Mapping[str, Any]) -> Done:
        pool, address = self._find(wish)
        data = _object(self._connection.ask("PATCH", _path(pool, address), content))
        if wish.wait is not None:
            data = {**data, "in_flight": self._wait(pool, data, wish.wait)}
        state, weight, left = (data.get(name) for name in ("state", "weight", "in_flight"))
        return Done(data, _line(f"{address}: {state}, weight {weight}, {left} in flight"))

    def _wait(
        self, pool: str, server: Mapping[str, Any], seconds: float, removed: bool = False
    ) -> int:
        """
        Wait until `server` has nothing in flight; 0. One that was `removed` is
        listed until then. Raises `Refused` if that takes longer than `seconds`,
        or cannot be expected any more.
        """
        address = server.get("address")
        deadline = self._monotonic() + seconds
        left = _in_flight(server)
        while left:
            if self._monotonic() >= deadline:
                raise Refused(f"{address} still has {left} in flight after {seconds:g} seconds")
            self._sleep(max(0.0, min(_INTERVAL, deadline - self._monotonic())))
            found = [one for one in self._servers(pool) if one.get("address") == address]
            back = [one for one in found if one.get("state") not in _IDLING]
            if back and not removed:
                raise Refused(f"{address} is {back[0].get('state')} again, with {left} in flight")
            # One that was removed may have registered again, beside what is left of it.
            left = sum(_in_flight(one) for one in found if one not in back)
        return 0


def _in_flight(server: Mapping[str, Any]) -> int:
    number = server.get("in_flight")
    if not isinstance(number, int):
        raise _strange()
    return number


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _strange()
    return data


def _strange() -> Unreachable:
    return Unreachable("the balancer's answer is not understood; is it of another version?")


def _path(pool: str, address: str) -> str:
    return f"/upstreams/{_quote(pool)}/{_quote(address)}"


def _quote(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _line(text: str) -> str:
    return f"{escape(text)}\n"
