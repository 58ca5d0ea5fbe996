"""In-memory test harness of the admin listener; see `tests.helpers.memory`."""

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
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server
from tests.helpers.memory import MemoryBalancer

JSON_HEADER = b"Content-Type: application/json\r\n"
HOST_HEADER = b"Host: 127.0.0.1:1101\r\n"


class AdminTransport(StringTransport):
    """
    The admin listener's end of an in-memory connection.

    Attributes:
        write_closed: the balancer has closed its direction (half-close).
        aborted: the balancer has aborted the connection.
    """

    write_closed = False
    aborted = False

    def loseWriteConnection(self) -> None:
        """Record a half-close."""
        self.write_closed = True

    def abortConnection(self) -> None:
        """Record a reset."""
        self.aborted = self.disconnecting = True


@frozen
class Response:
    """
    A parsed response of the admin API.

    Attributes:
        status: HTTP status code.
        fields: header fields by name in lower case.
        body: content of the response.
    """

    status: int
    fields: Mapping[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body, which must have the content type application/json."""
        assert self.fields[b"content-type"] == b"application/json", self
        return json.loads(self.body)

    @property
    def title(self) -> str:
        """The message of a failure in the form of the reference registration API."""
        assert set(self.json) == {"status", "data"} and self.json["status"] == "fail", self
        assert set(self.json["data"]) == {"title"}, self
        title: str = self.json["data"]["title"]
        return title

    @property
    def error(self) -> str:
        """The message of an error in JSend form."""
        assert set(self.json) == {"status", "data"} and self.json["status"] == "error", self
        text: str = self.json["data"]
        assert isinstance(text, str), self
        return text

    @property
    def data(self) -> Any:
        """The data of a success in JSend form."""
        assert set(self.json) == {"status", "data"} and self.json["status"] == "success", self
        return self.json["data"]


def parse_responses(data: bytes) -> list[Response]:
    """
    Parse all responses in `data`, of which none may be to a HEAD request.

    A response without Content-Length and Transfer-Encoding has no content; the last chunk of a
    stream may be missing. No field but WWW-Authenticate may
    occur twice in a head.
    """
    responses = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, data
        status_line, *lines = head.split(b"\r\n")
        pairs = [line.split(b": ", 1) for line in lines]
        fields = {name.lower(): value for name, value in pairs}
        # WWW-Authenticate may repeat: one field for each challenge.
        names = [name.lower() for name, _ in pairs if name != b"WWW-Authenticate"]
        assert len(set(names)) == len(names), f"repeated field: {head!r}"
        if b"transfer-encoding" in fields:
            body, data = decode_chunks(rest)
            responses.append(Response(int(status_line.split(b" ")[1]), fields, body))
            continue
        length = int(fields.get(b"content-length", b"0"))
        assert len(rest) >= length, data
        responses.append(Response(int(status_line.split(b" ")[1]), fields, rest[:length]))
        data = rest[length:]
    return responses


def decode_chunks(data: bytes) -> tuple[bytes, bytes]:
    """Return the content of the chunks in `data`, and what follows the last chunk."""
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        content, data = content + data[:length], data[length + 2 :]
        if not length:
            break
    return content, data


class AdminClient:
    """
    A client that is connected to the admin listener.

    Attributes:
        channel: the listener's protocol of this connection.
        transport: its transport.
        closed: the connection has been closed.
    """

    def __init__(self, admin: MemoryAdmin) -> None:
        """Connect to the listener of `admin`."""
        self.channel = admin.service.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4))
        self.transport = AdminTransport()
        self.closed = False
        self.channel.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece in a separate `dataReceived` call."""
        for piece in pieces:
            self.channel.dataReceived(piece)

    def received(self) -> bytes:
        """Return the bytes received since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def close(self) -> None:
        """Complete a close that the listener started, or else disconnect."""
        if self.closed:
            return
        self.closed = True
        clean = self.transport.disconnecting and not self.transport.aborted
        self.channel.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))


class MemoryAdmin:
    """
    The admin listener of a `MemoryBalancer`.

    Health checks of servers that register are started, but their outcome is up to the test.

    Attributes:
        balancer: the balancer that is administered.
        operations: its `AdminOperations`.
        health_checks: server, settings and pending result of each check that was started.
        service: the `AdminService`.
        clients: all clients that were connected.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        admin: AdminSettings = AdminSettings(),
        servers: int = 1,
    ) -> None:
        """Start a balancer with `servers` servers, or with `settings`, and its admin listener."""
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

    def _check(
        self, server: Server, checks: HealthCheckSettings, tls: ServerTls | None
    ) -> Deferred[str]:
        """Record a health check; stands in for the real one."""
        result: Deferred[str] = Deferred()
        self.health_checks.append((server, checks, result))
        return result

    def pass_check(self, number: int = -1) -> None:
        """Let a health check succeed, by default the newest."""
        self.health_checks[number][2].callback("fine")

    def fail_check(self, number: int = -1) -> None:
        """Let a health check fail, by default the newest."""
        self.health_checks[number][2].errback(ConnectionError("refused"))

    def connect(self) -> AdminClient:
        """Connect a client."""
        client = AdminClient(self)
        self.clients.append(client)
        return client

    def start_request(
        self, method: str, path: str, body: Any = None, fields: bytes = HOST_HEADER + JSON_HEADER
    ) -> AdminClient:
        """
        Send a request on a new connection, without waiting for the response.

        Args:
            method: request method.
            path: request target.
            body: content; anything but bytes and None is sent as JSON.
            fields: header lines, without Content-Length.
        """
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
        """Send a request as `start_request` does; return its response, which must be immediate."""
        client = self.start_request(method, path, body, fields)
        data = client.received()
        client.close()
        if method == "HEAD":
            # Its Content-Length is that of a GET; there is no content.
            assert data.endswith(b"\r\n\r\n")
            data = data.replace(b"Content-Length", b"Length-Of-Get")
        (response,) = parse_responses(data)
        return response

    def stop(self) -> None:
        """Stop listener and balancer, and assert that nothing is left."""
        self.service.stopService()
        for client in self.clients:
            client.close()
        self.balancer.stop()
        assert not self.service.site.connections
