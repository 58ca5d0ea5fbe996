"""A collector of traces on a real socket, which decodes OTLP with the library."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.helpers.processes import ScriptedServer, read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Collector(ScriptedServer):
    """
    A collector.

    Attributes:
        heads: the heads of the requests.
        spans: the spans that it has received.
        respond: called for each request with its connection; sends the response.
    """

    def __init__(self, response: bytes = OK, port: int = 0) -> None:
        """Listen on `port`, by default on a free one, and answer with `response`."""
        self.heads: list[bytes] = []
        self.spans: list[Any] = []
        self.respond: Callable[[socket.socket], None] = lambda client: client.sendall(response)
        super().__init__(self._receive, port)

    def __enter__(self) -> Collector:
        """Return the collector, which already listens."""
        return self

    @property
    def endpoint(self) -> str:
        """The URL for spans."""
        return f"http://{self.address}/v1/traces"

    def _receive(self, connection: socket.socket, number: int) -> None:
        """Read one request and answer it."""
        head, body = read_head(connection)
        (length,) = (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(body) < length:
            body += connection.recv(65536)
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        self.heads.append(head)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self.respond(connection)


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of a span by name."""
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }
