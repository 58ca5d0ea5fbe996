"""
The format of the state file: runtime changes as JSON.

Decoding is strict: unknown keys, duplicate servers and values out of range are
errors, so that a damaged file is set aside instead of being restored in part.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from balancebeam.config.addresses import parse_server_address
from balancebeam.core.addresses import ServerAddress
from balancebeam.core.settings import MAX_WEIGHT, AdminState

FORMAT = "balancebeam state"
VERSION = 1

_SERVER_KEYS = ("address", "weight", "configured_weight", "admin_state", "registered", "tls")

# Integers of the format are short; int() takes quadratic time on long ones.
_MAX_DIGITS = 20

# Characters of an error about an address, which can have any length.
_MAX_MESSAGE_LENGTH = 300


@frozen
class ServerState:
    """
    The runtime changes of one server.

    Attributes:
        address: The address of the server.
        weight: The weight set at run time, 0 to 256; `None` if it was not changed.
        configured_weight: The weight in the configuration when the snapshot was taken;
            `None` for a registered server.
        admin_state: The administrative state.
        registered: Whether the server was registered at run time and is not configured.
        tls: Whether a registered server was registered with TLS.
    """

    address: ServerAddress
    weight: int | None = None
    configured_weight: int | None = None
    admin_state: AdminState = AdminState.READY
    registered: bool = False
    tls: bool = False


@frozen
class State:
    """
    All runtime changes of a balancer.

    Attributes:
        pools: The changed servers of each pool, by the name of the pool.
    """

    pools: Mapping[str, tuple[ServerState, ...]]


def encode_state(state: State) -> bytes:
    """Return `state` as JSON. Raises `ValueError` for a pool name with a lone surrogate."""
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
    content = {
        "address": server.address.as_config(),
        "weight": server.weight,
        "configured_weight": server.configured_weight,
        "admin_state": server.admin_state.value,
        "registered": server.registered,
    }
    # Left out otherwise, so that earlier versions can read the file.
    return {**content, "tls": True} if server.tls else content


def decode_state(data: bytes) -> State:
    """Parse the output of `encode_state`. Raises `ValueError` with the reason."""
    content = _parse_json(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'unknown format: expected an object with "format": "{FORMAT}"')
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"invalid version {reprlib.repr(version)}: expected {VERSION}")
    if version > VERSION:
        raise ValueError(f"unsupported version {version}: expected {VERSION}")
    _reject_unknown_keys("top level", content, ("format", "version", "pools"))
    pools = content.get("pools")
    if not isinstance(pools, dict):
        raise ValueError(f"invalid pools {reprlib.repr(pools)}: expected an object")
    return State({_parse_name(name): _parse_pool(name, pool) for name, pool in pools.items()})


def _parse_json(data: bytes) -> Any:
    """Return the JSON value in `data`. Raises `ValueError`."""
    if not data.strip():
        raise ValueError("empty file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from None
    try:
        return json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_int=_parse_integer,
            parse_constant=_reject_constant,
        )
    except RecursionError:
        raise ValueError("invalid JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        stripped = text.rstrip()
        truncated = error.pos >= len(stripped) or not stripped.endswith("}")
        kind = "truncated file" if stripped.startswith("{") and truncated else "invalid JSON"
        raise ValueError(f"{kind}: {error}") from None


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {reprlib.repr(key)}")
        result[key] = value
    return result


def _parse_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"integer of {len(text)} digits: expected at most {_MAX_DIGITS}")
    return int(text)


def _reject_constant(text: str) -> Any:
    raise ValueError(f"invalid JSON: {text} is not a JSON number")


def _parse_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"invalid pool name {reprlib.repr(name)}: expected no lone surrogate"
        ) from None
    return name


def _parse_pool(name: str, pool: Any) -> tuple[ServerState, ...]:
    where = f"pool {reprlib.repr(name)}"
    if not isinstance(pool, list):
        raise ValueError(f"{where}: invalid value {reprlib.repr(pool)}: expected a list")
    servers = tuple(_parse_server(f"{where}, server {n}", item) for n, item in enumerate(pool, 1))
    seen: set[ServerAddress] = set()
    for server in servers:
        if server.address in seen:
            raise ValueError(f"{where}: duplicate server {_truncate(str(server.address))}")
        seen.add(server.address)
    return servers


def _parse_server(where: str, item: Any) -> ServerState:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: invalid value {reprlib.repr(item)}: expected an object")
    _reject_unknown_keys(where, item, _SERVER_KEYS)
    return ServerState(
        _parse_address(where, item.get("address")),
        _parse_weight(where, "weight", item.get("weight")),
        _parse_weight(where, "configured_weight", item.get("configured_weight")),
        _parse_admin_state(where, item.get("admin_state", AdminState.READY.value)),
        _parse_bool(where, "registered", item.get("registered", False)),
        _parse_bool(where, "tls", item.get("tls", False)),
    )


def _parse_bool(where: str, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where}: invalid {key} {reprlib.repr(value)}: expected true or false")
    return value


def _parse_address(where: str, value: Any) -> ServerAddress:
    if not isinstance(value, str):
        raise ValueError(f"{where}: invalid address {reprlib.repr(value)}: expected a string")
    try:
        return parse_server_address(value)
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: invalid address {reprlib.repr(value)}: expected no lone surrogate"
        ) from None
    except ValueError as error:
        raise ValueError(f"{where}: {_truncate(str(error))}") from None


def _parse_weight(where: str, key: str, value: Any) -> int | None:
    # `type` because a bool passes isinstance(value, int).
    if value is None or (type(value) is int and 0 <= value <= MAX_WEIGHT):
        return value
    raise ValueError(
        f"{where}: invalid {key} {reprlib.repr(value)}: expected an integer from 0 to {MAX_WEIGHT}"
    )


def _parse_admin_state(where: str, value: Any) -> AdminState:
    try:
        return AdminState.parse(value)
    except ValueError as error:
        raise ValueError(f"{where}: admin_state: {error}") from None


def _reject_unknown_keys(where: str, item: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in item:
        if key not in known:
            raise ValueError(
                f"{where}: unknown key {reprlib.repr(key)}: expected {', '.join(known)}"
            )


def _truncate(message: str) -> str:
    if len(message) <= _MAX_MESSAGE_LENGTH:
        return message
    return message[:_MAX_MESSAGE_LENGTH] + "…"
