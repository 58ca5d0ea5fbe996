"""What was changed while the program ran, as text that outlives it."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from balancebeam.config.addresses import parse_server_address
from balancebeam.core.addresses import ServerAddress, TcpAddress
from balancebeam.core.settings import AdminState

FORMAT = "balancebeam state"
VERSION = 1

_MAX_WEIGHT = 256

# Whole numbers of the format are short, and int() is slow with long ones.
_MAX_DIGITS = 20

# Characters of a message about an address, which can be of any length.
_MAX_MESSAGE_LENGTH = 300


@frozen
class ServerState:
    """
    What was said of one server at run time.

    `weight` is what it was given, if it was, and `configured_weight` what its
    configuration said then. A `registered` server is in no configuration.
    """

    address: ServerAddress
    weight: int | None = None
    configured_weight: int | None = None
    admin_state: AdminState = AdminState.READY
    registered: bool = False


@frozen
class State:
    """Servers of which something was said, by the names of their pools."""

    pools: Mapping[str, tuple[ServerState, ...]]


def encode_state(state: State) -> bytes:
    """`state` as JSON. Raises `ValueError` for a pool whose name is no Unicode text."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "pools": {
            name: [_encode_server(server) for server in servers]
            for name, servers in state.pools.items()
        },
    }
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _encode_server(server: ServerState) -> dict[str, Any]:
    return {
        "address": _encode_address(server.address),
        "weight": server.weight,
        "configured_weight": server.configured_weight,
        "admin_state": server.admin_state.value,
        "registered": server.registered,
    }


def _encode_address(address: ServerAddress) -> str:
    # unix:80 would be read as the path of a socket.
    ambiguous = isinstance(address, TcpAddress) and address.host == "unix"
    return f"http://{address}" if ambiguous else str(address)


def decode_state(data: bytes) -> State:
    """What `encode_state` made into `data`. Raises `ValueError`, saying what is wrong."""
    content = _parse_json(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'it is of another format: it does not say "format": "{FORMAT}"')
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"it has no valid version: {reprlib.repr(version)}")
    if version > VERSION:
        raise ValueError(f"it is of version {version}, and only {VERSION} is known")
    _reject_unknown_keys("it", content, ("format", "version", "pools"))
    pools = content.get("pools")
    if not isinstance(pools, dict):
        raise ValueError(f"its pools are no object: {reprlib.repr(pools)}")
    return State({_parse_name(name): _parse_pool(name, pool) for name, pool in pools.items()})


def _parse_json(data: bytes) -> Any:
    """The JSON in `data`. Raises `ValueError`."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: octet {error.start} is wrong") from None
    try:
        return json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_int=_parse_integer,
            parse_constant=_reject_constant,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except json.JSONDecodeError as error:
        written = text.rstrip()
        torn = error.pos >= len(written) or not written.endswith("}")
        kind = "cut off" if written.startswith("{") and torn else "not JSON"
        raise ValueError(f"it is {kind}: {error}") from None


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it says {reprlib.repr(key)} twice in one object")
        found[key] = value
    return found


def _parse_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)


def _reject_constant(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no number of JSON")


def _parse_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the pool {reprlib.repr(name)} has half a character in its name"
        ) from None
    return name


def _parse_pool(name: str, pool: Any) -> tuple[ServerState, ...]:
    where = f"the pool {reprlib.repr(name)}"
    if not isinstance(pool, list):
        raise ValueError(f"{where} is no list: {reprlib.repr(pool)}")
    servers = tuple(_parse_server(f"{where}, server {n}", item) for n, item in enumerate(pool, 1))
    seen: set[ServerAddress] = set()
    for server in servers:
        if server.address in seen:
            raise ValueError(f"{where} has {_truncate(str(server.address))} twice")
        seen.add(server.address)
    return servers


def _parse_server(where: str, item: Any) -> ServerState:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is no object: {reprlib.repr(item)}")
    _reject_unknown_keys(
        where, item, ("address", "weight", "configured_weight", "admin_state", "registered")
    )
    registered = item.get("registered", False)
    if not isinstance(registered, bool):
        raise ValueError(f"{where}: registered is true or false, not {reprlib.repr(registered)}")
    return ServerState(
        _parse_address(where, item.get("address")),
        _parse_weight(where, "weight", item.get("weight")),
        _parse_weight(where, "configured_weight", item.get("configured_weight")),
        _parse_admin_state(where, item.get("admin_state", AdminState.READY.value)),
        registered,
    )


def _parse_address(where: str, value: Any) -> ServerAddress:
    if not isinstance(value, str):
        raise ValueError(f"{where}: its address is no text: {reprlib.repr(value)}")
    try:
        return parse_server_address(value)
    except UnicodeEncodeError:
        raise ValueError(f"{where}: {reprlib.repr(value)} holds half a character") from None
    except ValueError as error:
        raise ValueError(f"{where}: {_truncate(str(error))}") from None


def _parse_weight(where: str, key: str, value: Any) -> int | None:
    # A bool is an int to isinstance.
    if value is None or (type(value) is int and 0 <= value <= _MAX_WEIGHT):
        return value
    raise ValueError(
        f"{where}: {key} is a whole number from 0 to {_MAX_WEIGHT}, not {reprlib.repr(value)}"
    )


def _parse_admin_state(where: str, value: Any) -> AdminState:
    for state in AdminState:
        if state.value == value:
            return state
    known = ", ".join(state.value for state in AdminState)
    raise ValueError(f"{where}: admin_state is one of {known}, not {reprlib.repr(value)}")


def _reject_unknown_keys(where: str, found: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            raise ValueError(
                f"{where}: {reprlib.repr(key)} is not known; there is {', '.join(known)}"
            )


def _truncate(message: str) -> str:
    if len(message) <= _MAX_MESSAGE_LENGTH:
        return message
    return message[:_MAX_MESSAGE_LENGTH] + "…"
