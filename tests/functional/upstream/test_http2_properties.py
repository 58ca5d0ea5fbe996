"""Any order of events on shared HTTP/2 connections: no response reaches another client."""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from balancebeam.core.settings import OutlierDetectionSettings
from tests.helpers.http2_server import Http2Server, Http2ServerTestCase
from tests.helpers.memory import MemoryBalancer, Peer

# What happens next, and to which of the streams or clients.
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("get", "get", "post", "more", "leave", "stall", "read"),
                *("respond", "respond", "start", "data", "reset", "refuse", "goaway", "close"),
            )
        ),
        st.integers(0, 7),
    ),
    max_size=40,
)


class Run:
    """One run: clients and servers, and what each client has to receive."""

    def __init__(self, balancer: MemoryBalancer, limit: int) -> None:
        self.balancer = balancer
        self.limit = limit
        self.clients: list[Peer] = []
        self.received: dict[int, bytes] = {}
        self.uploads: dict[int, int] = {}
        self.servers: list[Http2Server] = []
        # Streams whose response has started.
        self.started: set[tuple[int, int]] = set()

    def step(self, action: str, number: int) -> None:
        """Do one thing, as far as it is possible now."""
        if action in ("get", "post"):
            self.request(action)
        elif action in ("more", "leave", "stall", "read"):
            if self.clients:
                self.client_step(action, number % len(self.clients))
        else:
            self.server_step(action, number)
        self.accept()

    def request(self, action: str) -> None:
        """Send a request on a connection of its own; its path and body name the client."""
        number = len(self.clients)
        client = self.balancer.client()
        self.clients.append(client)
        self.received[number] = b""
        head = b"%b /%d HTTP/1.1\r\nHost: a\r\n" % (action.upper().encode(), number)
        if action == "get":
            client.send(head + b"\r\n")
        else:
            self.uploads[number] = 3
            client.send(head + b"Content-Length: 30000\r\n\r\n" + b"%d" % (number % 10) * 7500)

    def client_step(self, action: str, number: int) -> None:
        client = self.clients[number]
        if client.transport.closing or client.transport.closed:
            return
        if action == "more" and self.uploads.get(number) and client.transport.reading:
            self.uploads[number] -= 1
            client.send(b"%d" % (number % 10) * 7500)
        elif action == "leave":
            client.reset()
        elif action == "stall":
            client.transport.stalled = True
        elif action == "read":
            client.transport.stalled = False
            self.received[number] += client.received()

    def server_step(self, action: str, number: int) -> None:
        places = [
            (index, stream)
            for index, server in enumerate(self.servers)
            if not server.peer.transport.closing and not server.peer.transport.closed
            for stream, request in server.requests.items()
            if request.reset is None and stream in server.h2.streams
        ]
        if not places:
            return
        index, stream = places[number % len(places)]
        server = self.servers[index]
        path = str(server.requests[stream].field(":path"))[1:].encode()
        content = b"<%b>" % path * 50
        started = (index, stream) in self.started
        server.requests[stream].reset = 0 if action in ("respond", "reset", "refuse") else None
        if action == "respond":
            if started:
                server.send_data(stream, b"", end=True)
            else:
                server.respond(stream, content)
        elif action == "start" and not started:
            self.started.add((index, stream))
            server.send_headers(stream)
        elif action == "data" and started:
            if server.h2.local_flow_control_window(stream) > len(content):
                server.send_data(stream, content)
        elif action == "reset":
            server.reset(stream, ErrorCodes.INTERNAL_ERROR)
        elif action == "refuse" and not started:
            server.reset(stream, ErrorCodes.REFUSED_STREAM)
        elif action == "refuse":
            server.reset(stream, ErrorCodes.CANCEL)
        elif action == "goaway":
            last = stream.to_bytes(4, "big")
            server.send_raw(b"\0\0\x08\7\0\0\0\0\0" + last + b"\0\0\0\0")
        elif action == "close":
            server.peer.half_close()

    def accept(self) -> None:
        """Accept all connections, and let all servers read."""
        for connector in self.balancer.connectors[len(self.servers) :]:
            assert connector.state == "connecting"
            settings = {SettingCodes.MAX_CONCURRENT_STREAMS: self.limit}
            self.servers.append(Http2Server(self.balancer, len(self.servers), settings))
        for server in self.servers:
            if not server.peer.transport.closing and not server.peer.transport.closed:
                server.receive()


class InterleavingTests(Http2ServerTestCase):
    """Exchanges that share connections do not affect each other."""

    @settings(max_examples=150, deadline=None)
    @given(ACTIONS, st.integers(1, 4))
    def test_no_response_reaches_another_client(
        self, actions: list[tuple[str, int]], limit: int
    ) -> None:
        """Each client receives its own content only, and each server its own bodies."""
        balancer = self.http2_balancer(passive=OutlierDetectionSettings(cooldown=0.0))
        run = Run(balancer, limit)
        for action, number in actions:
            run.step(action, number)
        for number, client in enumerate(run.clients):
            client.transport.stalled = False
            received = run.received[number] + client.received()
            foreign = {b"<%d>" % other for other in range(len(run.clients)) if other != number}
            self.assertFalse([mark for mark in foreign if mark in received])
        for server in run.servers:
            self.assertLessEqual(len(server.requests), 64)
            for request in server.requests.values():
                digit = str(request.field(":path"))[-1].encode()
                self.assertEqual(request.content.strip(digit), b"")
        balancer.stop()
