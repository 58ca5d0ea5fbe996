"""An HTTP/2 client in memory: the `h2` library, which is strict about what it receives."""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha1
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from balancebeam.tls.interfaces import TlsInfo
from tests.helpers.memory import MemoryBalancer, Peer

H2_TLS = TlsInfo("TLSv1.3", False, "h2", "example.org", None)

Headers = list[tuple[str, str]]


def request_fields(method: str = "GET", path: str = "/", *extra: tuple[str, str]) -> Headers:
    """Return the fields of a request to example.org."""
    pseudo = [(":method", method), (":scheme", "https"), (":authority", "example.org")]
    return [*pseudo, (":path", path), *extra]


def accept_websocket(request: bytes) -> bytes:
    """Return the 101 response of a server to a request for a WebSocket."""
    key = next(
        line.partition(b": ")[2]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    digest = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: chat\r\n\r\n" % b64encode(digest)
    )


class Http2Response:
    """
    What was received on one stream.

    Attributes:
        fields: the fields of the final response; empty before it.
        informational: the fields of each 1xx response.
        content: the content so far.
        trailers: the trailer fields.
        ended: END_STREAM was received.
        reset: the error code of RST_STREAM; `None` without one.
    """

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.informational: list[dict[str, str]] = []
        self.content = b""
        self.trailers: dict[str, str] = {}
        self.ended = False
        self.reset: int | None = None

    @property
    def status(self) -> str:
        """The status of the final response; empty before it."""
        return self.fields.get(":status", "")


class Http2Client:
    """
    A client at the other end of a connection of `balancer`.

    Attributes:
        peer: the transport.
        h2: the state of the library; tests may change its settings.
        responses: what was received, by stream.
        goaways: the GOAWAY frames received.
        pings: the number of acknowledged PING frames.
        events: everything that the library reported.
    """

    def __init__(
        self, balancer: MemoryBalancer, host: str = "192.0.2.1", strict: bool = True, **client: Any
    ) -> None:
        """Connect; a client that is not `strict` may send what the library would refuse."""
        config = H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=strict,
            normalize_outbound_headers=strict,
        )
        client.setdefault("tls", H2_TLS)
        self.peer: Peer = balancer.client(host, **client)
        self.h2 = H2Connection(config)
        self.responses: defaultdict[int, Http2Response] = defaultdict(Http2Response)
        self.goaways: list[ConnectionTerminated] = []
        self.pings = 0
        self.events: list[Event] = []
        self.h2.initiate_connection()
        self.flush()

    def request(
        self, fields: Iterable[tuple[str, str]] | None = None, body: bytes | None = None
    ) -> int:
        """Send a request, with all of its body if it has any; return its stream."""
        stream_id: int = self.h2.get_next_available_stream_id()
        headers = list(request_fields() if fields is None else fields)
        self.h2.send_headers(stream_id, headers, end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream_id, body, end_stream=True)
        self.flush()
        return stream_id

    def start(self, fields: Iterable[tuple[str, str]]) -> int:
        """Send the head of a request whose body follows; return its stream."""
        stream_id: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, list(fields))
        self.flush()
        return stream_id

    def send_data(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Send content."""
        self.h2.send_data(stream_id, data, end_stream=end)
        self.flush()

    def reset(self, stream_id: int, code: int = 8) -> None:
        """Cancel a request."""
        self.h2.reset_stream(stream_id, code)
        self.flush()

    def flush(self, acknowledge: bool = True) -> None:
        """Send what the library has to send, and receive."""
        data = self.h2.data_to_send()
        if data:
            self.peer.send(data)
        self.receive(acknowledge)

    def send_raw(self, data: bytes) -> None:
        """Send bytes that the library does not know of, and receive."""
        self.peer.send(data)
        self.receive()

    def receive(self, acknowledge: bool = True) -> None:
        """Receive; the windows are opened again for all content unless not `acknowledge`."""
        data = self.peer.received()
        while data:
            for event in self.h2.receive_data(data):
                self._handle(event, acknowledge)
            out = self.h2.data_to_send()
            if out and not self.peer.transport.closing:
                self.peer.send(out)
            data = self.peer.received()

    def _handle(self, event: Any, acknowledge: bool) -> None:
        self.events.append(event)
        if isinstance(event, ConnectionTerminated):
            self.goaways.append(event)
            return
        if isinstance(event, PingAckReceived):
            self.pings += 1
            return
        stream_id = getattr(event, "stream_id", None)
        if not stream_id:
            return
        response = self.responses[stream_id]
        if isinstance(event, ResponseReceived):
            response.fields = _fields(event.headers)
        elif isinstance(event, InformationalResponseReceived):
            response.informational.append(_fields(event.headers))
        elif isinstance(event, DataReceived):
            response.content += event.data
            if acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, TrailersReceived):
            response.trailers = _fields(event.headers)
        elif isinstance(event, StreamEnded):
            response.ended = True
        elif isinstance(event, StreamReset):
            response.reset = int(event.error_code)


def _fields(headers: Any) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in headers:
        name, value = (part if isinstance(part, str) else part.decode() for part in field)
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
