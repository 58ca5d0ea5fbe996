"""A stand-in for the admin listener, and the responses that it sends."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.helpers.processes import ScriptedServer, read_head


def server_info(**changes: Any) -> dict[str, Any]:
    """A server as `GET /upstreams` describes it, with `changes`."""
    return {
        "pool": "app",
        "address": "10.0.0.1:80",
        "weight": 1,
        "state": "up",
        "reason": "",
        "since": None,
        "in_flight": 0,
        "requests": 12,
        "failures": 0,
        **changes,
    }


def response(
    body: bytes,
    status: str = "200 OK",
    content_type: str = "application/json",
    extra_headers: bytes = b"",
) -> bytes:
    """A whole response; each of `extra_headers` ends with CRLF."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + extra_headers + b"\r\n" + body


def success(data: Any) -> bytes:
    """A successful response with `data`."""
    return response(json.dumps({"status": "success", "data": data}).encode())


def failure(message: str, status: str) -> bytes:
    """A response that reports an error."""
    return response(json.dumps({"status": "error", "data": message}).encode(), status)


def scripted_listener(*responses: bytes, heads: list[bytes] | None = None) -> ScriptedServer:
    """
    A server that sends one of `responses` on each connection, and closes it.

    The last response is repeated. The heads of the requests are appended to `heads`.
    """

    def serve(connection: socket.socket, number: int) -> None:
        head, _ = read_head(connection)
        if heads is not None:
            heads.append(head)
        connection.sendall(responses[min(number, len(responses)) - 1])

    return ScriptedServer(serve)
