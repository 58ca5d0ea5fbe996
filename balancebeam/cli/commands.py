"""What each command asks the balancer for, and what it shows of the answer."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple
from urllib.parse import quote

from balancebeam.cli.admin_address import normalize_address
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.errors import ConnectionFailed, RequestRejected, UsageError
from balancebeam.cli.status import status_table
from balancebeam.cli.terminal import Terminal, escape

# The states of a server that gets nothing new.
DRAINING_STATES = ("draining", "maintenance")

# Seconds between two looks at a server that is waited for.
_POLL_INTERVAL = 0.25


class CommandResult(NamedTuple):
    """What a command has found: for programs, and as lines for a person."""

    data: Any
    text: str


class Commands:
    """Does the commands by asking over `client`, and shows what comes on `terminal`."""

    def __init__(
        self,
        client: AdminClient,
        terminal: Terminal = Terminal(),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client = client
        self._terminal = terminal
        self._monotonic = monotonic
        self._sleep = sleep

    def run(self, args: Namespace) -> CommandResult:
        """What `args.command` says. Raises `CommandError`."""
        done: CommandResult = getattr(self, args.command)(args)
        return done

    def status(self, args: Namespace) -> CommandResult:
        servers = self._list_servers(args.pool)
        return CommandResult(servers, status_table(servers, time.time(), self._terminal))

    def drain(self, args: Namespace) -> CommandResult:
        return self._patch_server(args, {"state": "drain"})

    def maintenance(self, args: Namespace) -> CommandResult:
        return self._patch_server(args, {"state": "maintenance"})

    def ready(self, args: Namespace) -> CommandResult:
        return self._patch_server(args, {"state": "ready"})

    def weight(self, args: Namespace) -> CommandResult:
        return self._patch_server(args, {"weight": args.weight})

    def register(self, args: Namespace) -> CommandResult:
        path = "/register" if args.pool is None else f"/upstreams/{_quote(args.pool)}"
        content = {"address": args.address}
        if args.weight is not None:
            content["weight"] = args.weight
        data = _require_object(self._client.request("POST", path, content))
        text = f"{data.get('server', args.address)}: registered, weight {data.get('weight')}"
        return CommandResult(data, _escaped_line(text))

    def remove(self, args: Namespace) -> CommandResult:
        pool, address = self._find_server(args)
        data = _require_object(self._client.request("DELETE", _server_path(pool, address)))
        if args.wait is not None:
            data = {
                **data,
                "in_flight": self._wait_until_drained(pool, data, args.wait, removed=True),
            }
        left = data.get("in_flight")
        text = f"removed, when {left} in flight are done" if left else "removed"
        return CommandResult(data, _escaped_line(f"{address}: {text}"))

    def reload(self, args: Namespace) -> CommandResult:
        data = _require_object(self._client.request("POST", "/reload"))
        changed = data.get("changed")
        if not isinstance(changed, list):
            raise _unexpected_response()
        lines = [_escaped_line(str(one)) for one in changed]
        return CommandResult(data, "".join(lines) or "nothing has changed\n")

    def config(self, args: Namespace) -> CommandResult:
        text = self._client.get_text("/config", "application/toml")
        return CommandResult({"config": text}, escape(text, allow="\n\t"))

    # Servers.

    def _list_servers(self, pool: str | None = None) -> list[Mapping[str, Any]]:
        path = "/upstreams" if pool is None else f"/upstreams/{_quote(pool)}"
        servers = self._client.request("GET", path)
        if not isinstance(servers, list):
            raise _unexpected_response()
        return [_require_object(server) for server in servers]

    def _find_server(self, args: Namespace) -> tuple[str, str]:
        """The pool and the address of the server that is meant."""
        address = normalize_address(args.address)
        if args.pool is not None:
            return args.pool, address
        servers = self._list_servers()
        pools = sorted({str(one.get("pool")) for one in servers if one.get("address") == address})
        if not pools:
            raise RequestRejected(f"no pool has a server {address}; see balancebeam status")
        if len(pools) > 1:
            raise UsageError(f"several pools have {address}; give --pool {' or '.join(pools)}")
        return pools[0], address

    def _patch_server(self, args: Namespace, content: Mapping[str, Any]) -> CommandResult:
        pool, address = self._find_server(args)
        data = _require_object(self._client.request("PATCH", _server_path(pool, address), content))
        if args.wait is not None:
            data = {**data, "in_flight": self._wait_until_drained(pool, data, args.wait)}
        state, weight, left = (data.get(name) for name in ("state", "weight", "in_flight"))
        return CommandResult(
            data, _escaped_line(f"{address}: {state}, weight {weight}, {left} in flight")
        )

    def _wait_until_drained(
        self, pool: str, server: Mapping[str, Any], seconds: float, removed: bool = False
    ) -> int:
        """
        Wait until `server` has nothing in flight; 0. One that was `removed` is
        listed until then. Raises `RequestRejected` if that takes longer than `seconds`,
        or cannot be expected any more.
        """
        address = server.get("address")
        deadline = self._monotonic() + seconds
        left = _in_flight(server)
        while left:
            if self._monotonic() >= deadline:
                raise RequestRejected(
                    f"{address} still has {left} in flight after {seconds:g} seconds"
                )
            self._sleep(max(0.0, min(_POLL_INTERVAL, deadline - self._monotonic())))
            found = [one for one in self._list_servers(pool) if one.get("address") == address]
            back = [one for one in found if one.get("state") not in DRAINING_STATES]
            if back and not removed:
                raise RequestRejected(
                    f"{address} is {back[0].get('state')} again, with {left} in flight"
                )
            # One that was removed may have registered again, beside what is left of it.
            left = sum(_in_flight(one) for one in found if one not in back)
        return 0


def _in_flight(server: Mapping[str, Any]) -> int:
    number = server.get("in_flight")
    if not isinstance(number, int):
        raise _unexpected_response()
    return number


def _require_object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _unexpected_response()
    return data


def _unexpected_response() -> ConnectionFailed:
    return ConnectionFailed("the balancer's answer is not understood; is it of another version?")


def _server_path(pool: str, address: str) -> str:
    return f"/upstreams/{_quote(pool)}/{_quote(address)}"


def _quote(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _escaped_line(text: str) -> str:
    return f"{escape(text)}\n"
