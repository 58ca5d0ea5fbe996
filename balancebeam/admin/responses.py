"""Responses of the admin API."""

from __future__ import annotations

from typing import Any

from attrs import frozen

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


def success(data: Any, status: int = 200) -> ApiResponse:
    """Return `data` as a JSend success."""
    return ApiResponse(status, jsend_success(data) + b"\n")


def error(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> ApiResponse:
    """Return `text` as a JSend error."""
    return ApiResponse(status, jsend_error(text) + b"\n", headers=headers)
