"""What the admin listener answers."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

JSON = b"application/json"


@frozen
class Answer:
    """A whole answer. `fields` come besides Content-Type."""

    status: int
    body: bytes
    kind: bytes = JSON
    fields: tuple[tuple[bytes, bytes], ...] = ()


def success(data: Any, status: int = 200) -> Answer:
    """What went well, in JSend form."""
    return Answer(status, json.dumps({"status": "success", "data": data}).encode() + b"\n")


def error(status: int, text: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """What did not, in JSend form."""
    body = json.dumps({"status": "error", "data": text}).encode() + b"\n"
    return Answer(status, body, fields=fields)
