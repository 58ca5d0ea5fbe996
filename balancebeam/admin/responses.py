"""Responses of the admin API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Union

from attrs import frozen
from twisted.web.server import Request

from balancebeam.protocols.http1.local_reply import JSON, jsend_error, jsend_success


@frozen
class ApiResponse:
    """
    A complete response.

    Attributes:
        status: The status code.
        body: The body.
        content_type: The value of Content-Type.
        headers: Names and values of further headers.
    """

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@frozen
class SlicedResponse:
    """
    A complete response whose body is made in slices; its status is 200.

    Attributes:
        pieces: Makes the text of the body, see `Slices.make`.
        content_type: The value of Content-Type.
        headers: Names and values of further headers.
    """

    pieces: Iterator[str]
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@frozen
class StreamResponse:
    """
    A response whose body has no end yet; its status is 200.

    Attributes:
        content_type: The value of Content-Type.
        start: Called with the request when the head is set; writes the body.
    """

    content_type: bytes
    start: Callable[[Request], object]


Response = Union[ApiResponse, SlicedResponse, StreamResponse]


def success(data: Any, status: int = 200) -> ApiResponse:
    """Return `data` as a JSend success."""
    return ApiResponse(status, jsend_success(data) + b"\n")


def sliced_success(items: Iterable[Any]) -> SlicedResponse:
    """Return a JSend success with an array of `items`, of any number."""
    return SlicedResponse(_success_pieces(items))


def _success_pieces(items: Iterable[Any]) -> Iterator[str]:
    yield '{"status": "success", "data": '
    yield from array_pieces(items, json.dumps, ", ")
    yield "}\n"


def array_pieces(
    items: Iterable[Any], encode: Callable[[Any], str], separator: str = ","
) -> Iterator[str]:
    """Make the JSON array of `items` in pieces, of one item each."""
    before = "["
    for item in items:
        yield before + encode(item)
        before = separator
    yield "[]" if before == "[" else "]"


def error(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> ApiResponse:
    """Return `text` as a JSend error."""
    return ApiResponse(status, jsend_error(text) + b"\n", headers=headers)
