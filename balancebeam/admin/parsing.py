"""JSON bodies and queries of admin requests: parsing and validation."""

from __future__ import annotations

import json
import reprlib
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import evolve, frozen

from balancebeam.config.addresses import parse_server_url
from balancebeam.core.settings import MAX_WEIGHT, AdminState, ServerSettings

# Characters. A DNS name has at most 253; the rest is for scheme and port.
MAX_ADDRESS_LENGTH = 300


class AdminError(Exception):
    """
    A request that cannot be carried out.

    Attributes:
        status: The status of the response.
        text: The reason, for the client.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


@frozen
class Registration:
    """
    A request of a server to join a pool.

    Attributes:
        text: The address as the client wrote it; the response repeats it.
        settings: The server, with the weight of the request.
    """

    text: str
    settings: ServerSettings


@frozen
class ServerChange:
    """
    A request to change a server; `None` leaves a value as it is.

    Attributes:
        weight: The new weight, 0 to 256.
        state: The new admin state.
    """

    weight: int | None = None
    state: AdminState | None = None


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises `AdminError` with status 400."""
    try:
        value = json.loads(
            body, parse_constant=_reject_constant, object_pairs_hook=_reject_duplicate_names
        )
    except RecursionError:
        raise AdminError(400, "invalid JSON body: nested too deeply") from None
    except ValueError as error:
        raise AdminError(400, f"invalid JSON body: {error}") from None
    if not isinstance(value, dict):
        raise AdminError(400, "invalid body: expected a JSON object")
    return value


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("duplicate name in an object")
    return result


def parse_query(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    """
    Parse the query component of a target.

    A plus sign stands for itself, unlike in the queries of HTML forms: targets and host names
    may have one, and no parameter has a space.

    Args:
        query: The query, percent-encoded UTF-8.
        known: The names of the parameters.

    Returns:
        The values by name.

    Raises:
        AdminError: A parameter is unknown, repeated or without a value, or is not UTF-8.
    """
    values: dict[str, str] = {}
    for part in query.split(b"&") if query else ():
        encoded_name, equals, encoded_value = part.partition(b"=")
        try:
            name = unquote_to_bytes(encoded_name).decode()
            value = unquote_to_bytes(encoded_value).decode()
        except UnicodeDecodeError:
            raise AdminError(400, "invalid query: expected percent-encoded UTF-8") from None
        if name not in known:
            expected = " or ".join(known)
            raise AdminError(400, f"unknown parameter {reprlib.repr(name)}: expected {expected}")
        if name in values:
            raise AdminError(400, f"repeated parameter {name}")
        if not equals:
            raise AdminError(400, f"parameter {name} without a value: expected {name}=VALUE")
        values[name] = value
    return values


def parse_registration(body: bytes, unknown_field_status: int) -> Registration:
    """
    Parse the body of a registration.

    Args:
        body: A JSON object with `address`, and optionally `weight`.
        unknown_field_status: The status of the error for any other field.

    Raises:
        AdminError: The body is invalid.
    """
    content = parse_object(body)
    _reject_unknown_fields(content, ("address", "weight"), unknown_field_status)
    text = content.get("address")
    if not isinstance(text, str):
        raise AdminError(400, 'missing address: expected a string such as "http://127.0.0.1:1080"')
    text = text.strip()
    if len(text) > MAX_ADDRESS_LENGTH or not text.isprintable():
        raise AdminError(
            400,
            f"invalid address {text[:100]!r}: "
            f"expected at most {MAX_ADDRESS_LENGTH} printable characters",
        )
    try:
        server = parse_server_url(text)
    except ValueError as error:
        raise AdminError(400, f"address: {error}") from None
    return Registration(text, evolve(server, weight=_parse_weight(content.get("weight", 1))))


def parse_change(content: dict[str, Any]) -> ServerChange:
    """
    Validate the fields of a change.

    Args:
        content: An object with `weight`, `state` or both.

    Raises:
        AdminError: A field is invalid or unknown, or there is none.
    """
    _reject_unknown_fields(content, ("weight", "state"), 400)
    if not content:
        raise AdminError(400, "empty change: expected weight, state or both")
    return ServerChange(
        _parse_weight(content["weight"]) if "weight" in content else None,
        _parse_state(content["state"]) if "state" in content else None,
    )


def _reject_unknown_fields(content: dict[str, Any], known: tuple[str, ...], status: int) -> None:
    for name in content:
        if name not in known:
            raise AdminError(
                status, f"unknown field {reprlib.repr(name)}: expected {' or '.join(known)}"
            )


def _parse_weight(value: Any) -> int:
    # A bool passes isinstance(value, int).
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_WEIGHT:
        raise AdminError(
            400,
            f"invalid weight {reprlib.repr(value)}: expected an integer from 0 to {MAX_WEIGHT}",
        )
    return value


def _parse_state(value: Any) -> AdminState:
    try:
        return AdminState.parse(value)
    except ValueError as error:
        raise AdminError(400, str(error)) from None
