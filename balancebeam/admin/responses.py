"""What the admin listener answers."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

JSON = b"application/json"


@frozen
class ApiResponse:
    """A whole answer. `headers` come besides Content-Type."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def success(data: Any, status: int = 200) -> ApiResponse:
    """What went well, in JSend form."""
    return ApiResponse(status, json.dumps({"status": "success", "data": data}).encode() + b"\n")


def error(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> ApiResponse:
    """What did not, in JSend form."""
    body = json.dumps({"status": "error", "data": text}).encode() + b"\n"
    return ApiResponse(status, body, headers=headers)
