"""Hostile HTTP/1.1 messages, sent over real sockets to a running balancer.

Requests go to a server that records the bytes it receives; responses come from a server that sends
the raw bytes of the case. The cases are in ``tests.helpers.hostile_messages``.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest

from tests.fuzz.target import check_requests, check_response
from tests.helpers.hostile_messages import (
    REQUESTS,
    RESPONSES,
    TRUNCATED,
    RequestCase,
    ResponseCase,
    rst_table,
)
from tests.helpers.processes import BalancerProcess, ScriptedServer, read_head, run_balancer

#: A complete valid response, after which the connection can be reused.
OK_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RecordingServer:
    """A server that records all received bytes and answers each complete request with 200.

    Attributes:
        received: Bytes received on all connections since the last `take_received`.
        lock: Guards `received`; each connection is served by a thread of its own.
    """

    def __init__(self) -> None:
        """Start with nothing recorded."""
        self.received = b""
        self.lock = threading.Lock()

    def serve(self, connection: socket.socket, number: int) -> None:
        """Serve one connection until EOF, or until keep-alive ends.

        Args:
            connection: The accepted connection.
            number: Index of the connection; unused.
        """
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
        while True:
            data = connection.recv(65536)
            if not data:
                return
            with self.lock:
                self.received += data
            reader.receive_data(data)
            while True:
                event = reader.next_event()
                if isinstance(event, h11.EndOfMessage):
                    connection.sendall(OK_RESPONSE)
                    reader.send(h11.Response(status_code=200, headers=[("Content-Length", "2")]))
                    reader.send(h11.Data(data=b"ok"))
                    reader.send(h11.EndOfMessage())
                    if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                        return
                    reader.start_next_cycle()
                elif event is h11.NEED_DATA or event is h11.PAUSED:
                    break

    def take_received(self) -> bytes:
        """Return the bytes recorded so far, and forget them."""
        with self.lock:
            received, self.received = self.received, b""
        return received


class RawResponseServer:
    """A server that answers each request with configured raw bytes.

    Attributes:
        response: Bytes to send for each request.
        close: Whether to close the connection after the first response.
    """

    def __init__(self) -> None:
        """Start with an empty response, and close after it."""
        self.response = b""
        self.close = True

    def serve(self, connection: socket.socket, number: int) -> None:
        """Answer the requests of one connection.

        Args:
            connection: The accepted connection.
            number: Index of the connection; unused.
        """
        while True:
            read_head(connection)
            connection.sendall(self.response)
            if self.close:
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    connection.recv(1)
                return


@pytest.fixture(scope="module")
def recording_balancer(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[BalancerProcess, RecordingServer]]:
    """A running balancer in front of a `RecordingServer`, and that server."""
    recorder = RecordingServer()
    with ScriptedServer(recorder.serve) as server:
        folder = tmp_path_factory.mktemp("recording")
        with run_balancer(folder, "--upstream", server.address) as running:
            yield running, recorder


@pytest.fixture(scope="module")
def raw_response_balancer(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[BalancerProcess, RawResponseServer, ScriptedServer]]:
    """A running balancer in front of a `RawResponseServer`, that server and its listener."""
    raw_server = RawResponseServer()
    with ScriptedServer(raw_server.serve) as server:
        folder = tmp_path_factory.mktemp("raw_responses")
        with run_balancer(folder, "--upstream", server.address) as running:
            yield running, raw_server, server


def send_and_read_to_eof(running: BalancerProcess, sent: bytes) -> bytes:
    """Send bytes on a new connection, half-close it, and return all received bytes.

    Args:
        running: The balancer to connect to.
        sent: The bytes to send.

    Returns:
        The bytes received until EOF or a reset.
    """
    with running.connect() as client:
        client.sendall(sent)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        response = b""
        with contextlib.suppress(ConnectionError):
            while True:
                data = client.recv(65536)
                if not data:
                    break
                response += data
        return response


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.name)
def test_request(
    case: RequestCase, recording_balancer: tuple[BalancerProcess, RecordingServer]
) -> None:
    """A request is forwarded in one unambiguous form, or rejected without trace at the server."""
    running, recorder = recording_balancer
    recorder.take_received()
    with running.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(case.sent)
        response = b""
        while b"\r\n\r\n" not in response:
            data = client.recv(65536)
            assert data, f"connection closed before a complete response head: {response!r}"
            response += data
        assert response.startswith(b"HTTP/1.1 %d " % case.status), response
        received = recorder.take_received()
        if case.status == 200:
            check_requests(received, min_requests=1)
            assert case.forwarded in received, received
            if case.stripped:
                assert case.stripped.lower() not in received.lower(), received
            return
        # A rejected request is not forwarded, nor is the request pipelined after it.
        assert b"\r\nConnection: close\r\n" in response or case.status == 417, response
        if case.status != 417:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                while True:
                    data = client.recv(65536)
                    if not data:
                        break
                    response += data
            assert response.count(b"HTTP/1.1 ") == 1, response
    later_received = recorder.take_received()
    if later_received or received:
        # The head is forwarded before a malformed chunk is found in the body;
        # the forwarded message then stays incomplete.
        assert b"chunked" in case.sent.lower()
        assert b"/second" not in later_received
        assert not (received + later_received).endswith(b"0\r\n\r\n"), received + later_received


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.name)
def test_response(
    case: ResponseCase,
    raw_response_balancer: tuple[BalancerProcess, RawResponseServer, ScriptedServer],
) -> None:
    """A response is forwarded in one unambiguous form, replaced by 502, or visibly truncated."""
    running, raw_server, _ = raw_response_balancer
    raw_server.response = case.sent
    raw_server.close = True
    response = send_and_read_to_eof(running, case.request)
    if case.status == TRUNCATED:
        if response.startswith(b"HTTP/1.1 502 "):
            # The error was found before the head was forwarded.
            check_response(response, truncated=False)
            return
        assert response.startswith(b"HTTP/1.1 200 OK\r\n"), response
        with pytest.raises(h11.RemoteProtocolError):
            check_complete_response(response)
        return
    while response.startswith(b"HTTP/1.1 102 "):
        response = response.partition(b"\r\n\r\n")[2]
    assert response.startswith(b"HTTP/1.1 %d " % case.status), response
    assert case.forwarded in response, response
    if case.stripped:
        assert case.stripped not in response, response
    if case.request.startswith(b"GET"):
        check_response(response, truncated=False)


def check_complete_response(stream: bytes) -> None:
    """Check that bytes start with one complete response to a GET.

    Args:
        stream: All bytes received until EOF.

    Raises:
        h11.RemoteProtocolError: The response is malformed or incomplete.
    """
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=200_000)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(stream)
    reader.receive_data(b"")
    while not isinstance(reader.next_event(), h11.EndOfMessage):
        pass


@pytest.mark.parametrize(
    "case",
    [case for case in RESPONSES if case.status not in (TRUNCATED, 502)],
    ids=lambda case: case.name,
)
def test_connection_after_response(
    case: ResponseCase,
    raw_response_balancer: tuple[BalancerProcess, RawResponseServer, ScriptedServer],
) -> None:
    """A server connection is reused only after a response whose end is unambiguous."""
    running, raw_server, server = raw_response_balancer
    raw_server.response = case.sent
    raw_server.close = False
    with running.connect() as client:
        connections_before = server.connections
        for _ in range(2):
            client.sendall(case.request)
            head, rest = read_head(client)
            assert head.startswith(b"HTTP/1.1 %d " % case.status), head
            while not is_complete(case, head, rest):
                rest += client.recv(65536)
            assert b"evil" not in head + rest
        # The first request may have used an idle connection of the previous case.
        opened = server.connections - connections_before
        assert opened <= 1 if case.reused else opened >= 1, opened
    # Close the server connection, so that the next case does not reuse it.
    raw_server.close = True
    raw_server.response = OK_RESPONSE
    send_and_read_to_eof(running, case.request)


def is_complete(case: ResponseCase, head: bytes, body: bytes) -> bool:
    """Return whether a forwarded response has been received completely.

    Args:
        case: The case with the request and the expected status.
        head: The received head.
        body: The bytes received after the head.
    """
    if b"chunked" in head.lower():
        return body.endswith(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
    has_body = case.status == 200 and case.request.startswith(b"GET")
    return not has_body or length is None or len(body) >= int(length[1])


def test_cases_are_documented() -> None:
    """``docs/message-conformance.rst`` lists exactly the tested cases."""
    path = Path(__file__).parents[2] / "docs" / "message-conformance.rst"
    assert path.read_text() == rst_table(), (
        "run: python -m tests.helpers.hostile_messages > docs/message-conformance.rst"
    )


def test_case_names_are_unique() -> None:
    """No two request cases and no two response cases share a name."""
    for cases in (REQUESTS, RESPONSES):
        names = [case.name for case in cases]
        assert len(set(names)) == len(names), sorted(
            name for name in names if names.count(name) > 1
        )
