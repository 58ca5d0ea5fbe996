"""Responses of the admin API."""

from __future__ import annotations

from typing import Any, Callable

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
class StreamResponse:
    """
    A response whose body has no end yet; its status is 200.

    Attributes:
        content_type: The value of Content-Type.
        start: Called with the request when the head is set; writes the body.
    """

    content_type: bytes
    start: Callable[[Request], object]


def success(data: Any, status: int = 200) -> ApiResponse:
    """Return `data` as a JSend success."""
    return ApiResponse(status, jsend_success(data) + b"\n")


def error(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> ApiResponse:
    """Return `text` as a JSend error."""
    return ApiResponse(status, jsend_error(text) + b"\n", headers=headers)
