"""An HTTP/2 server in memory: the `h2` library, which is strict about what it receives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from balancebeam.api import single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import MemoryBalancer, Peer


def _text(fields: Any) -> list[tuple[str, str]]:
    """Return fields as text, which they are with this configuration of the library."""
    return [(str(name), str(value)) for name, value in fields]


class Http2Request:
    """
    What was received on one stream.

    Attributes:
        fields: the fields of the request, in order.
        content: the content so far.
        trailers: the trailer fields.
        ended: END_STREAM was received.
        reset: the error code of RST_STREAM; `None` without one.
    """

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.content = b""
        self.trailers: list[tuple[str, str]] = []
        self.ended = False
        self.reset: int | None = None

    def field(self, name: str) -> str | None:
        """The value of a field; `None` without it."""
        return dict(self.fields).get(name)


class Http2Server:
    """
    The server's end of a connection that the balancer has opened.

    Attributes:
        peer: the transport.
        h2: the state of the library.
        requests: what was received, by stream.
        goaways: the GOAWAY frames received.
        pings: the number of PING frames received.
        events: everything that the library reported.
    """

    def __init__(
        self,
        balancer: MemoryBalancer,
        number: int = -1,
        settings: dict[SettingCodes, int] | None = None,
        silent: bool = False,
        acknowledge: bool = True,
    ) -> None:
        """
        Accept an attempt to connect.

        Args:
            balancer: the balancer.
            number: the number of the attempt.
            settings: the settings of the server.
            silent: send no SETTINGS until `flush`.
            acknowledge: open the windows again for content that is received.
        """
        self.start(balancer.accept(number), settings, silent, acknowledge)

    def start(
        self,
        peer: Peer,
        settings: dict[SettingCodes, int] | None = None,
        silent: bool = False,
        acknowledge: bool = True,
        received: bytes = b"",
    ) -> None:
        """Serve a connection, of which `received` was received already."""
        self.peer = peer
        config = H2Configuration(client_side=False, header_encoding="latin-1")
        self.h2 = H2Connection(config)
        self.requests: defaultdict[int, Http2Request] = defaultdict(Http2Request)
        self.goaways: list[ConnectionTerminated] = []
        self.pings = 0
        self.events: list[Event] = []
        self.acknowledge = acknowledge
        if settings:
            values: dict[Any, int] = {**self.h2.local_settings, **settings}
            self.h2.local_settings = Settings(client=False, initial_values=values)
        self.h2.initiate_connection()
        self.silent = silent
        self._process_data(received)
        self.receive()
        if not silent:
            self.flush()

    def receive(self) -> None:
        """Process what the balancer has sent, and respond as the protocol demands."""
        while True:
            data = self.peer.received()
            if not data:
                return
            self._process_data(data)
            if not self.silent:
                self.flush()

    def _process_data(self, data: bytes) -> None:
        for event in self.h2.receive_data(data) if data else ():
            self.events.append(event)
            self._process(event)

    def _process(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.requests[event.stream_id].fields = _text(event.headers)
        elif isinstance(event, DataReceived):
            self.requests[event.stream_id].content += event.data
            if self.acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            self.requests[event.stream_id].trailers = _text(event.headers)
        elif isinstance(event, StreamEnded):
            self.requests[event.stream_id].ended = True
        elif isinstance(event, StreamReset):
            self.requests[event.stream_id].reset = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.goaways.append(event)
        elif isinstance(event, PingReceived):
            self.pings += 1

    def flush(self) -> None:
        """Send what the library has to send, in one batch, and process the reaction."""
        self.silent = False
        data = self.h2.data_to_send()
        if data:
            self.peer.send(data)
            self.receive()

    def send_raw(self, data: bytes) -> None:
        """Send bytes that the library would refuse to send."""
        self.peer.send(data)
        self.receive()

    def respond(
        self,
        stream_id: int,
        body: bytes | None = b"hello",
        *extra: tuple[str, str],
        status: str = "200",
        trailers: Iterable[tuple[str, str]] = (),
        length: bool = True,
        flush: bool = True,
    ) -> None:
        """Send a complete response; `None` for no DATA frame at all."""
        fields = [(":status", status), ("date", "Thu, 01 Jan 1970 00:00:00 GMT"), *extra]
        if length and body is not None:
            fields.append(("content-length", str(len(body))))
        trailers = list(trailers)
        self.h2.send_headers(stream_id, fields, end_stream=body is None and not trailers)
        if body is not None:
            self.h2.send_data(stream_id, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(stream_id, trailers, end_stream=True)
        if flush:
            self.flush()

    def send_headers(
        self, stream_id: int, *extra: tuple[str, str], status: str = "200", end: bool = False
    ) -> None:
        """Send the head of a response."""
        self.h2.send_headers(stream_id, [(":status", status), *extra], end_stream=end)
        self.flush()

    def send_data(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Send content."""
        self.h2.send_data(stream_id, data, end_stream=end)
        self.flush()

    def reset(self, stream_id: int, code: int) -> None:
        """Send RST_STREAM."""
        self.h2.reset_stream(stream_id, code)
        self.flush()


class Http2ServerTestCase(BalancerTestCase):
    """Base class of tests with HTTP/2 servers in memory."""

    def http2_balancer(
        self, servers: int = 1, others: tuple[ServerSettings, ...] = (), **settings: Any
    ) -> MemoryBalancer:
        """Start a balancer with `servers` HTTP/2 servers."""
        numbered = tuple(
            ServerSettings(TcpAddress(f"10.0.0.{number}", 80), protocol="h2")
            for number in range(1, servers + 1)
        )
        everything = single_pool_settings(servers=(*numbered, *others), bind=(), **settings)
        balancer = MemoryBalancer.from_settings(everything)
        self.addCleanup(balancer.stop)
        return balancer
