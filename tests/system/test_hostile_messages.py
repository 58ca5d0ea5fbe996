"""Every hostile case, over real sockets, against servers that record and that lie."""

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

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RecordingServer:
    """A server that writes down all it gets, and answers whole requests."""

    def __init__(self) -> None:
        self.received = b""
        self.changed = threading.Condition()

    def serve(self, connection: socket.socket, number: int) -> None:
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
        while True:
            data = connection.recv(65536)
            if not data:
                return
            with self.changed:
                self.received += data
            reader.receive_data(data)
            while True:
                event = reader.next_event()
                if isinstance(event, h11.EndOfMessage):
                    connection.sendall(OK)
                    reader.send(h11.Response(status_code=200, headers=[("Content-Length", "2")]))
                    reader.send(h11.Data(data=b"ok"))
                    reader.send(h11.EndOfMessage())
                    if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                        return
                    reader.start_next_cycle()
                elif event is h11.NEED_DATA or event is h11.PAUSED:
                    break

    def take_received(self) -> bytes:
        with self.changed:
            received, self.received = self.received, b""
        return received


class RawResponseServer:
    """A server that answers each request with the bytes it was given, and closes."""

    def __init__(self) -> None:
        self.answer = b""
        self.close = True

    def serve(self, connection: socket.socket, number: int) -> None:
        while True:
            read_head(connection)
            connection.sendall(self.answer)
            if self.close:
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    connection.recv(1)
                return


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[BalancerProcess, RecordingServer]]:
    recorder = RecordingServer()
    with ScriptedServer(recorder.serve) as server:
        folder = tmp_path_factory.mktemp("recorded")
        with run_balancer(folder, "--upstream", server.address) as running:
            yield running, recorder


@pytest.fixture(scope="module")
def raw_responses(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[BalancerProcess, RawResponseServer, ScriptedServer]]:
    liar = RawResponseServer()
    with ScriptedServer(liar.serve) as server:
        folder = tmp_path_factory.mktemp("lied")
        with run_balancer(folder, "--upstream", server.address) as running:
            yield running, liar, server


def ask(running: BalancerProcess, sent: bytes) -> bytes:
    """Send all of it, and read until the end; the sending side ends early."""
    with running.connect() as client:
        client.sendall(sent)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while True:
                data = client.recv(65536)
                if not data:
                    break
                answer += data
        return answer


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.name)
def test_request(case: RequestCase, recorded: tuple[BalancerProcess, RecordingServer]) -> None:
    running, recorder = recorded
    recorder.take_received()
    with running.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(case.sent)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = client.recv(65536)
            assert data, f"closed without an answer after {answer!r}"
            answer += data
        assert answer.startswith(b"HTTP/1.1 %d " % case.status), answer
        received = recorder.take_received()
        if case.status == 200:
            check_requests(received, min_requests=1)
            assert case.forwarded in received, received
            if case.stripped:
                assert case.stripped.lower() not in received.lower(), received
            return
        # A refused request leaves no trace, and neither does what follows it.
        assert b"\r\nConnection: close\r\n" in answer or case.status == 417, answer
        if case.status != 417:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                while True:
                    data = client.recv(65536)
                    if not data:
                        break
                    answer += data
            assert answer.count(b"HTTP/1.1 ") == 1, answer
    unfinished = recorder.take_received()
    if unfinished or received:
        # A head may be on its way before its body turns out to be broken;
        # then the message is never completed.
        assert b"chunked" in case.sent.lower()
        assert b"/second" not in unfinished
        assert not (received + unfinished).endswith(b"0\r\n\r\n"), received + unfinished


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.name)
def test_response(
    case: ResponseCase, raw_responses: tuple[BalancerProcess, RawResponseServer, ScriptedServer]
) -> None:
    running, liar, _ = raw_responses
    liar.answer = case.sent
    liar.close = True
    answer = ask(running, case.request)
    if case.status == TRUNCATED:
        if answer.startswith(b"HTTP/1.1 502 "):
            # The fault was found before the head had gone on.
            check_response(answer, truncated=False)
            return
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
        with pytest.raises(h11.RemoteProtocolError):
            read_whole(answer)
        return
    while answer.startswith(b"HTTP/1.1 102 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    assert answer.startswith(b"HTTP/1.1 %d " % case.status), answer
    assert case.forwarded in answer, answer
    if case.stripped:
        assert case.stripped not in answer, answer
    if case.request.startswith(b"GET"):
        check_response(answer, truncated=False)


def read_whole(stream: bytes) -> None:
    """Raise `RemoteProtocolError` unless `stream` is one whole response to a GET."""
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
    ids=lambda c: c.name,
)
def test_connection_after_response(
    case: ResponseCase, raw_responses: tuple[BalancerProcess, RawResponseServer, ScriptedServer]
) -> None:
    running, liar, server = raw_responses
    liar.answer = case.sent
    liar.close = False
    with running.connect() as client:
        before = server.connections
        for _ in range(2):
            client.sendall(case.request)
            head, rest = read_head(client)
            assert head.startswith(b"HTTP/1.1 %d " % case.status), head
            while not _complete(case, head, rest):
                rest += client.recv(65536)
            assert b"evil" not in head + rest
        # An idle connection left by the case before may have served the first.
        made = server.connections - before
        assert made <= 1 if case.reused else made >= 1, made
    # Nobody after it finds such a connection idle.
    liar.close = True
    liar.answer = OK
    ask(running, case.request)


def _complete(case: ResponseCase, head: bytes, body: bytes) -> bool:
    if b"chunked" in head.lower():
        return body.endswith(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
    has_body = case.status == 200 and case.request.startswith(b"GET")
    return not has_body or length is None or len(body) >= int(length[1])


def test_cases_are_in_the_docs() -> None:
    path = Path(__file__).parents[2] / "docs" / "message-conformance.rst"
    assert path.read_text() == rst_table(), (
        "run: python -m tests.helpers.hostile_messages > docs/message-conformance.rst"
    )


def test_all_names_differ() -> None:
    for cases in (REQUESTS, RESPONSES):
        names = [case.name for case in cases]
        assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
