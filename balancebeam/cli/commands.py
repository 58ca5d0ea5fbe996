"""The operator commands: the requests to the admin API, and the output of their results."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple
from urllib.parse import quote, urlencode

from balancebeam.cli.admin_address import normalize_address
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.errors import ConnectionFailed, RequestRejected, UsageError
from balancebeam.cli.explanation import explanation_text
from balancebeam.cli.recent_requests import request_details, requests_table
from balancebeam.cli.status import status_table
from balancebeam.cli.terminal import Terminal, escape
from balancebeam.cli.top import read_snapshot
from balancebeam.cli.top_table import top_table

# The states of a server that gets no new requests.
DRAINING_STATES = ("draining", "maintenance")

# Seconds between two requests for the state of a server that `--wait` waits for: short enough
# for a deployment script, and four small requests a second are no load.
_POLL_INTERVAL = 0.25


class CommandResult(NamedTuple):
    """
    Result of a command.

    Attributes:
        data: output with `--json`.
        text: output without it, escaped for a terminal.
    """

    data: Any
    text: str


class Commands:
    """The operator commands, each a method that takes the parsed arguments."""

    def __init__(
        self,
        client: AdminClient,
        terminal: Terminal = Terminal(),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """
        Create the commands; no request is sent yet.

        Args:
            client: client of the admin API.
            terminal: where the text will be shown.
            monotonic: clock for `--wait`, in seconds.
            sleep: waits for a number of seconds.
        """
        self._client = client
        self._terminal = terminal
        self._monotonic = monotonic
        self._sleep = sleep
        self._handlers: Mapping[str, Callable[[Namespace], CommandResult]] = {
            "status": self.status,
            "top": self.top,
            "drain": self.drain,
            "maintenance": self.maintenance,
            "ready": self.ready,
            "weight": self.weight,
            "register": self.register,
            "remove": self.remove,
            "reload": self.reload,
            "explain": self.explain,
            "requests": self.requests,
            "config": self.config,
        }

    def run(self, args: Namespace) -> CommandResult:
        """Run the command `args.command`. Raises `CommandError`."""
        return self._handlers[args.command](args)

    def status(self, args: Namespace) -> CommandResult:
        """Show the servers of all pools or of one."""
        servers = self._list_servers(args.pool)
        return CommandResult(servers, status_table(servers, time.time(), self._terminal))

    def top(self, args: Namespace) -> CommandResult:
        """Show the servers and their traffic once; `run_top` redraws it."""
        snapshot = read_snapshot(self._client)
        return CommandResult(snapshot, top_table(snapshot, self._terminal))

    def drain(self, args: Namespace) -> CommandResult:
        """Drain a server."""
        return self._patch_server(args, {"state": "drain"})

    def maintenance(self, args: Namespace) -> CommandResult:
        """Drain a server and stop its health checks."""
        return self._patch_server(args, {"state": "maintenance"})

    def ready(self, args: Namespace) -> CommandResult:
        """End the draining or maintenance of a server."""
        return self._patch_server(args, {"state": "ready"})

    def weight(self, args: Namespace) -> CommandResult:
        """Set the weight of a server."""
        return self._patch_server(args, {"weight": args.weight})

    def register(self, args: Namespace) -> CommandResult:
        """Register a server, or set the weight of a registered one."""
        path = "/register" if args.pool is None else f"/upstreams/{_quote(args.pool)}"
        content = {"address": args.address}
        if args.weight is not None:
            content["weight"] = args.weight
        data = _require_object(self._client.request("POST", path, content))
        text = f"{data.get('server', args.address)}: registered, weight {data.get('weight')}"
        return CommandResult(data, _escaped_line(text))

    def remove(self, args: Namespace) -> CommandResult:
        """Remove a server; it drains first."""
        pool, address = self._find_server(args)
        data = _require_object(self._client.request("DELETE", _server_path(pool, address)))
        if args.wait is not None:
            self._wait_until_drained(pool, data, args.wait, removed=True)
            data = {**data, "in_flight": 0}
        remaining = data.get("in_flight")
        text = f"draining before removal, {remaining} in flight" if remaining else "removed"
        return CommandResult(data, _escaped_line(f"{address}: {text}"))

    def reload(self, args: Namespace) -> CommandResult:
        """Reload the configuration and show what changed."""
        data = _require_object(self._client.request("POST", "/reload"))
        changes = data.get("changed")
        if not isinstance(changes, list):
            raise _unexpected_response()
        lines = [_escaped_line(str(change)) for change in changes]
        return CommandResult(data, "".join(lines) or "nothing has changed\n")

    def explain(self, args: Namespace) -> CommandResult:
        """Show the route, the limits and the servers of a request."""
        query = {"target": args.url, "method": args.method}
        for name in ("client", "frontend"):
            value = getattr(args, name)
            if value is not None:
                query[name] = value
        encoded = urlencode(query, quote_via=quote, errors="surrogateescape")
        data = _require_object(self._client.request("GET", f"/explain?{encoded}"))
        return CommandResult(data, explanation_text(data, self._terminal))

    def requests(self, args: Namespace) -> CommandResult:
        """Show recent requests."""
        query = [f"{name}=1" for name in ("failed", "slow") if getattr(args, name)]
        query += [
            f"{name}={_quote(str(value))}"
            for name, value in (("id", args.id), ("limit", args.limit))
            if value is not None
        ]
        path = "/requests" + ("?" + "&".join(query) if query else "")
        items = self._client.request("GET", path)
        if not isinstance(items, list):
            raise _unexpected_response()
        requests = [_require_object(item) for item in items]
        if args.id is not None:
            return CommandResult(requests, request_details(requests))
        return CommandResult(requests, requests_table(requests, self._terminal))

    def config(self, args: Namespace) -> CommandResult:
        """Show the effective configuration."""
        text = self._client.get_text("/config", "application/toml")
        return CommandResult({"config": text}, escape(text, allow="\n\t"))

    def _list_servers(self, pool: str | None = None) -> list[Mapping[str, Any]]:
        """Return the servers of `pool`, or of all pools."""
        path = "/upstreams" if pool is None else f"/upstreams/{_quote(pool)}"
        servers = self._client.request("GET", path)
        if not isinstance(servers, list):
            raise _unexpected_response()
        return [_require_object(server) for server in servers]

    def _find_server(self, args: Namespace) -> tuple[str, str]:
        """
        Return the pool and the normalized address of the server that `args` name.

        Raises:
            RequestRejected: without `--pool`, and no pool has the server.
            UsageError: without `--pool`, and several pools have it.
        """
        address = normalize_address(args.address)
        if args.pool is not None:
            return args.pool, address
        servers = self._list_servers()
        pools = sorted(
            {str(server.get("pool")) for server in servers if server.get("address") == address}
        )
        if not pools:
            raise RequestRejected(f"no pool has a server {address}; see balancebeam status")
        if len(pools) > 1:
            raise UsageError(f"several pools have {address}; give --pool {' or '.join(pools)}")
        return pools[0], address

    def _patch_server(self, args: Namespace, content: Mapping[str, Any]) -> CommandResult:
        """Change a server, wait for `--wait`, and show its state."""
        pool, address = self._find_server(args)
        data = _require_object(self._client.request("PATCH", _server_path(pool, address), content))
        if args.wait is not None:
            self._wait_until_drained(pool, data, args.wait)
            data = {**data, "in_flight": 0}
        state, weight, in_flight = (data.get(key) for key in ("state", "weight", "in_flight"))
        return CommandResult(
            data, _escaped_line(f"{address}: {state}, weight {weight}, {in_flight} in flight")
        )

    def _wait_until_drained(
        self, pool: str, server: Mapping[str, Any], seconds: float, removed: bool = False
    ) -> None:
        """
        Wait until a server has no requests or connections in flight.

        Args:
            server: the server as the admin API described it before.
            seconds: time limit.
            removed: whether the server is being removed; it is listed while it drains.

        Raises:
            RequestRejected: the time limit expired, or the server is no longer draining.
        """
        address = server.get("address")
        deadline = self._monotonic() + seconds
        remaining = _in_flight(server)
        while remaining:
            if self._monotonic() >= deadline:
                raise RequestRejected(
                    f"{address} still has {remaining} in flight after {seconds:g} seconds"
                )
            self._sleep(max(0.0, min(_POLL_INTERVAL, deadline - self._monotonic())))
            listed = [item for item in self._list_servers(pool) if item.get("address") == address]
            draining = [item for item in listed if item.get("state") in DRAINING_STATES]
            active = [item for item in listed if item not in draining]
            # A removed server may have registered again: it is then listed twice, and only
            # the draining entry counts.
            if active and not removed:
                raise RequestRejected(
                    f"{address} is {active[0].get('state')} again, with {remaining} in flight"
                )
            remaining = sum(_in_flight(item) for item in draining)


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
    return ConnectionFailed(
        "unexpected response of the admin API: the balancer may be of another version"
    )


def _server_path(pool: str, address: str) -> str:
    return f"/upstreams/{_quote(pool)}/{_quote(address)}"


def _quote(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _escaped_line(text: str) -> str:
    return f"{escape(text)}\n"
