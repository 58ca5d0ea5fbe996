"""The admin listener in memory: its clients and the servers it asks are plain objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from balancebeam.admin.service import AdminService, build_authorizer
from balancebeam.core.settings import AdminSettings, HealthCheckSettings, Settings
from balancebeam.upstream.server import Server
from tests.helpers.memory import MemoryBalancer

JSON_HEADER = b"Content-Type: application/json\r\n"
HOST_HEADER = b"Host: 127.0.0.1:1101\r\n"


class AdminTransport(StringTransport):
    """The admin listener's end of a connection."""

    write_closed = False
    aborted = False

    def loseWriteConnection(self) -> None:
        self.write_closed = True

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True


@frozen
class Response:
    """What came back, taken apart."""

    status: int
    fields: Mapping[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which has to be JSON and said to be."""
        assert self.fields[b"content-type"] == b"application/json", self
        return json.loads(self.body)

    @property
    def title(self) -> str:
        """What a failure says, in S4's form."""
        assert set(self.json) == {"status", "data"} and self.json["status"] == "fail", self
        assert set(self.json["data"]) == {"title"}, self
        title: str = self.json["data"]["title"]
        return title

    @property
    def error(self) -> str:
        """What an error says, in JSend form."""
        assert set(self.json) == {"status", "data"} and self.json["status"] == "error", self
        text: str = self.json["data"]
        assert isinstance(text, str), self
        return text

    @property
    def data(self) -> Any:
        """What went well."""
        assert set(self.json) == {"status", "data"} and self.json["status"] == "success", self
        return self.json["data"]


def parse_responses(data: bytes) -> list[Response]:
    """All replies in `data`, each of which has a length (and is none to a HEAD)."""
    replies = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, data
        first, *lines = head.split(b"\r\n")
        pairs = [line.split(b": ", 1) for line in lines]
        fields = {name.lower(): value for name, value in pairs}
        # Of that one there is a field for each challenge.
        names = [name.lower() for name, _ in pairs if name != b"WWW-Authenticate"]
        assert len(set(names)) == len(names), f"a field is there twice: {head!r}"
        length = int(fields.get(b"content-length", b"0"))
        assert len(rest) >= length, data
        replies.append(Response(int(first.split(b" ")[1]), fields, rest[:length]))
        data = rest[length:]
    return replies


class AdminClient:
    """Somebody who is connected to the admin listener."""

    def __init__(self, admin: MemoryAdmin) -> None:
        self.channel = admin.service.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4))
        self.transport = AdminTransport()
        self.closed = False
        self.channel.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece as an event of its own."""
        for piece in pieces:
            self.channel.dataReceived(piece)

    def received(self) -> bytes:
        """What has come since the last time."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def close(self) -> None:
        """End the connection."""
        if self.closed:
            return
        self.closed = True
        asked = self.transport.disconnecting and not self.transport.aborted
        self.channel.connectionLost(Failure(ConnectionDone() if asked else ConnectionLost()))


class MemoryAdmin:
    """
    The admin listener of a `balancer`. Servers that want to register are `asked`
    if they are well, and the test says so.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        admin: AdminSettings = AdminSettings(),
        servers: int = 1,
    ) -> None:
        if settings is None:
            self.balancer = MemoryBalancer(servers)
        else:
            self.balancer = MemoryBalancer.from_settings(settings)
        service = self.balancer.service
        self.operations = service.admin_operations
        self.health_checks: list[tuple[Server, HealthCheckSettings, Deferred[str]]] = []
        self.operations._check = self._check
        self.service = AdminService(
            service, self.operations, self.balancer.clock, admin, build_authorizer(admin)
        )
        self.clients: list[AdminClient] = []

    def _check(self, server: Server, checks: HealthCheckSettings) -> Deferred[str]:
        asking: Deferred[str] = Deferred()
        self.health_checks.append((server, checks, asking))
        return asking

    def pass_check(self, number: int = -1) -> None:
        """A server that was asked is well."""
        self.health_checks[number][2].callback("fine")

    def fail_check(self, number: int = -1) -> None:
        """A server that was asked is not."""
        self.health_checks[number][2].errback(ConnectionError("refused"))

    def connect(self) -> AdminClient:
        """A new client."""
        client = AdminClient(self)
        self.clients.append(client)
        return client

    def start_request(
        self, method: str, path: str, body: Any = None, fields: bytes = HOST_HEADER + JSON_HEADER
    ) -> AdminClient:
        """A request on a connection of its own, which may be answered later."""
        client = self.connect()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        head = f"{method} {path} HTTP/1.1\r\n".encode() + fields + length + b"\r\n"
        client.send(head + (body or b""))
        return client

    def request(
        self, method: str, path: str, body: Any = None, fields: bytes = HOST_HEADER + JSON_HEADER
    ) -> Response:
        """One request and what is answered at once."""
        client = self.start_request(method, path, body, fields)
        data = client.received()
        client.close()
        if method == "HEAD":
            assert data.endswith(b"\r\n\r\n")
            data = data.replace(b"Content-Length", b"Length-Of-Get")
        (reply,) = parse_responses(data)
        return reply

    def stop(self) -> None:
        """Stop everything, and see that nothing is left."""
        self.service.stopService()
        for client in self.clients:
            client.close()
        self.balancer.stop()
        assert not self.service.site.connections
