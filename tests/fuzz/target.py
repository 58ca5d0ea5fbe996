"""
What is tried with arbitrary bytes, and what must hold for all of them.

`try_input` takes bytes of which the first says what to do with the rest. It
raises `AssertionError`, or whatever the code under test raises, if something
is wrong; h11 is the independent reader of what goes on.
"""

from __future__ import annotations

from typing import Any, Callable

import h11

from balancebeam.core.errors import RequestError, ResponseError
from balancebeam.core.ip import normalize_ip
from balancebeam.protocols.client_hello import ClientHello, ClientHelloError, ClientHelloReader
from balancebeam.protocols.http1.body import BodyError, ChunkedReader
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for
from balancebeam.protocols.http1.grammar import is_host
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.response_head import ResponseHeadParser
from balancebeam.protocols.proxy_protocol import (
    ProxyProtocolError,
    encode_proxy_header,
    parse_proxy_header,
)
from balancebeam.proxy.forwarded_fields import build_forwarded_fields
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

# Readers that remember everything they have seen so far. What they remember
# must never change what they say.
_WARM_REQUESTS = RequestHeadParser()
_WARM_RESPONSES = ResponseHeadParser()

MAX_EVENT_SIZE = 200_000

_ENDS = (b"\r\n\r\n", b"\n\n")


def try_input(data: bytes) -> None:
    """Do what the first octet says with the rest."""
    if data:
        _TARGETS[data[0] % len(_TARGETS)](data[1:])


def request_heads(data: bytes) -> None:
    """A request head is read the same whether it was seen before or not."""
    if b"\r\n\r\n" in data or not data.endswith(b"\r\n"):
        data = data.split(b"\r\n\r\n")[0] + b"\r\n"
    outcomes: list[Any] = []
    for heads in (RequestHeadParser(), _WARM_REQUESTS, _WARM_REQUESTS):
        try:
            head = heads.parse(data)
        except RequestError as refused:
            outcomes.append((refused.status,))
        else:
            outcomes.append(head)
    assert outcomes[0] == outcomes[1] == outcomes[2], outcomes
    if not isinstance(outcomes[0], tuple):
        head = outcomes[0]
        wire = head.forward_bytes + build_forwarded_fields(
            head, b"192.0.2.1", b"http", b"localhost", False
        )
        check_requests(wire, min_requests=1)


def client_hellos(data: bytes) -> None:
    """A hello is read, or refused, the same in pieces; its name can stand in a Host field."""
    step = data[0] + 1 if data else 1
    whole = _read_client_hello(data[1:], len(data) + 1)
    for pieces in (step, 1):
        assert _read_client_hello(data[1:], pieces) == whole, whole
    if isinstance(whole, ClientHello) and whole.server_name is not None:
        name = whole.server_name
        assert is_host(name.encode("ascii")) and name == name.lower(), name
        assert normalize_ip(name) is None, name


def _read_client_hello(data: bytes, step: int) -> ClientHello | str | None:
    reader = ClientHelloReader()
    try:
        for start in range(0, len(data), step):
            hello = reader.feed(data[start : start + step])
            if hello is not None:
                return hello
    except ClientHelloError as error:
        return str(error)
    return None


def forwarded_chains(data: bytes) -> None:
    """What a client invents stays left of what a trusted proxy adds."""
    for read, last in ((iter_x_forwarded_for, b"192.0.2.1"), (iter_forwarded, b"for=192.0.2.1")):
        found = list(read(data + b", " + last))
        assert found[0] == "192.0.2.1", found
        for address in found:
            assert address is None or normalize_ip(address) == address, address


def proxy_headers(data: bytes) -> None:
    """A PROXY header names addresses in their one form, and says the same in pieces."""
    try:
        header = parse_proxy_header(data)
    except ProxyProtocolError:
        return
    if header is None:
        return
    connection, length = header
    if connection is None:
        return
    for address in (connection.source, connection.destination):
        assert normalize_ip(address) == address, address
    assert parse_proxy_header(data[:length]) == header
    for version in (1, 2):
        again = parse_proxy_header(encode_proxy_header(version, connection))
        assert again is not None
        assert again[0] == connection


def response_heads(data: bytes) -> None:
    """The same for response heads."""
    data = data.split(b"\r\n\r\n")[0] + b"\r\n"
    outcomes: list[Any] = []
    for heads in (ResponseHeadParser(), _WARM_RESPONSES, _WARM_RESPONSES):
        try:
            outcomes.append(heads.parse(data))
        except ResponseError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1] == outcomes[2], outcomes


def chunked_bodies(data: bytes) -> None:
    """A chunked body is the same in one piece and in many."""
    step = data[0] % 7 + 1 if data else 1
    whole = _read_chunked([data[1:]])
    pieces = _read_chunked([data[i : i + step] for i in range(1, len(data), step)])
    if whole is None or pieces is None:
        # In pieces, a fault may be found before what stands in front of it is used.
        assert whole is None and pieces is None, (whole, pieces)
    else:
        assert whole == pieces, (whole, pieces)


def _read_chunked(pieces: list[bytes]) -> tuple[bytes, bool, bytes, bytes] | None:
    reader = ChunkedReader()
    content = excess = b""
    for piece in pieces:
        if reader.complete:
            excess += piece
            continue
        try:
            content += reader.feed(piece)
        except BodyError:
            return None
    return content, reader.complete, reader.trailers, reader.trailing_data + excess


def client_streams(data: bytes) -> None:
    """Whatever a client sends, a server gets whole requests or the start of one."""
    step = data[0] + 1 if data else 1
    balancer = MemoryBalancer()
    client = balancer.client()
    received: list[bytes] = []
    servers: list[Peer] = []
    try:
        for i in range(1, len(data), step):
            if client.transport.closing or not client.transport.reading:
                break
            client.send(data[i : i + step])
            _respond(balancer, servers, received)
        client.received()
        client.half_close()
        _respond(balancer, servers, received)
    finally:
        balancer.stop()
    for stream in received:
        check_requests(stream)


def _respond(balancer: MemoryBalancer, servers: list[Peer], received: list[bytes]) -> None:
    for connector in balancer.connectors:
        if connector.state == "connecting":
            server = connector.accept()
            balancer.peers.append(server)
            servers.append(server)
            received.append(b"")
    for index, server in enumerate(servers):
        data = server.received()
        received[index] += data
        exchange = server.protocol.exchange
        if data and not server.transport.closing and exchange and exchange.body_complete:
            server.send(OK)


def server_streams(data: bytes) -> None:
    """Whatever a server sends, a client gets what h11 can read, or is cut off."""
    step = data[0] + 1 if data else 1
    balancer = MemoryBalancer()
    client = balancer.client()
    received = b""
    try:
        client.send(GET)
        server = balancer.accept()
        for i in range(1, len(data), step):
            if server.transport.closing or not server.transport.reading:
                break
            server.send(data[i : i + step])
            received += client.received()
        if not server.transport.closing:
            server.half_close()
        received += client.received()
        cut = client.transport.closing
    finally:
        balancer.stop()
    check_response(received, cut)


def check_requests(stream: bytes, min_requests: int = 0) -> None:
    """Check that h11 reads `stream` as requests, the last perhaps not complete."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_EVENT_SIZE)
    connection.receive_data(stream)
    found = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            found += 1
        elif isinstance(event, h11.EndOfMessage):
            if connection.their_state is h11.MUST_CLOSE:
                break
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                break
            connection.start_next_cycle()
        elif event is h11.NEED_DATA or event is h11.PAUSED:
            break
        elif isinstance(event, h11.ConnectionClosed):
            # So h11 takes a stream of nothing at all.
            assert not stream
            break
    assert found >= min_requests, stream


def check_response(stream: bytes, truncated: bool) -> None:
    """Check that h11 reads `stream` as the response to a GET, or as the start of one."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_EVENT_SIZE)
    if not stream:
        return
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "example.org")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(stream)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            rest = connection.trailing_data[0]
            assert not rest, stream
            return
        if event is h11.NEED_DATA or event is h11.PAUSED:
            assert truncated, stream
            return


_TARGETS: tuple[Callable[[bytes], None], ...] = (
    request_heads,
    response_heads,
    chunked_bodies,
    client_streams,
    server_streams,
    forwarded_chains,
    proxy_headers,
    client_hellos,
)

# Where to begin: one well-formed example of each, and some that are nearly so.
SEEDS: tuple[bytes, ...] = (
    b"\x07\x04\x16\x03\x01\x00\x4e\x01\x00\x00\x4a\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01"
    b"\x01\x00\x00\x1f\x00\x0a\x00\x04\x00\x02\x00\x1d\x00\x00\x00\x13\x00\x11\x00\x00"
    b"\x0eWww.Example.de",
    b"\x05192.0.2.9, [2001:db8::1]:80, unknown",
    b'\x05for="[2001:db8::1]:80";proto=http;by=_x, for=192.0.2.9',
    b"\x06PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\nGET",
    b"\x06\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc0\0\x02\x01\x12\x67\0\x50GET",
    b"\x00GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\nX: 1\r\n",
    b"\x00POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n",
    b"\x00GET / HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1\r\nUpgrade: h2c, x\r\nMax-Forwards: 1\r\n",
    b"\x01HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\nConnection: close\r\n",
    b"\x01HTTP/1.0 204\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 5\r\n",
    b'\x02\x013\r\nabc\r\n1;x="y"\r\nd\r\n0\r\nX: 1\r\n\r\nrest',
    b"\x03\xff" + GET + GET,
    b"\x03\x05POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET,
    b"\x03\x10PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"\x03\xffGET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    b"\x04\xff" + OK,
    b"\x04\x07HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\na\r\n0\r\nX: 1\r\n\r\n",
    b"\x04\x30HTTP/1.0 200 OK\r\n\r\nabc",
)
