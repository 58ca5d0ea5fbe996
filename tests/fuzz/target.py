"""
Fuzz targets: functions of arbitrary bytes that check invariants.

The first byte of an input selects the target, the rest is its input. A violated
invariant raises `AssertionError`, or whatever the code under test raises. h11 is
the independent parser of everything that is forwarded.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Callable

import h11
from twisted.internet.protocol import connectionDone

from balancebeam.core.errors import RequestError, ResponseError
from balancebeam.core.ip import normalize_ip
from balancebeam.protocols.client_hello import ClientHello, ClientHelloError, ClientHelloReader
from balancebeam.protocols.http1.body import BodyError, ChunkedReader
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for
from balancebeam.protocols.http1.grammar import is_host
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead, ResponseHeadParser
from balancebeam.protocols.http2.hpack import HeaderLimits
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.table_state import HeaderDecoder, SharedTables
from balancebeam.protocols.proxy_protocol import (
    ProxyProtocolError,
    encode_proxy_header,
    parse_proxy_header,
)
from balancebeam.proxy.forwarded_fields import build_forwarded_fields
from tests.fuzz.http2_target import HTTP2_SEEDS, HTTP2_TARGETS
from tests.helpers.memory import GET, OK, MemoryBalancer, MemoryTransport, Peer
from tests.helpers.tls_peer import SMALL_CLIENT_HELLO, server_context

# Parsers whose caches hold all inputs so far, which must never change a result.
_WARM_REQUESTS = RequestHeadParser()
_WARM_RESPONSES = ResponseHeadParser()

# h11's limit for a head: larger than any that the proxy accepts or forwards.
MAX_EVENT_SIZE = 200_000


def try_input(data: bytes) -> None:
    """Run the target that the first byte selects with the rest of `data`."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def request_heads(data: bytes) -> None:
    """A request head gives the same result with empty and with filled caches."""
    if b"\r\n\r\n" in data or not data.endswith(b"\r\n"):
        data = data.split(b"\r\n\r\n")[0] + b"\r\n"
    outcomes: list[RequestHead | int] = []
    for parser in (RequestHeadParser(), _WARM_REQUESTS, _WARM_REQUESTS):
        try:
            outcomes.append(parser.parse(data))
        except RequestError as error:
            outcomes.append(error.status)
    assert outcomes[0] == outcomes[1] == outcomes[2], outcomes
    head = outcomes[0]
    if isinstance(head, RequestHead):
        added = build_forwarded_fields(head, b"192.0.2.1", b"http", b"localhost", False)
        check_requests(head.forward_bytes + added, min_requests=1)


def client_hellos(data: bytes) -> None:
    """A ClientHello gives the same result in pieces; its name is a valid Host."""
    step = data[0] + 1 if data else 1
    whole = _read_client_hello(data[1:], len(data) + 1)
    for size in (step, 1):
        assert _read_client_hello(data[1:], size) == whole, whole
    if isinstance(whole, ClientHello) and whole.server_name is not None:
        name = whole.server_name
        assert is_host(name.encode("ascii")) and name == name.lower(), name
        assert normalize_ip(name) is None, name


def _read_client_hello(data: bytes, step: int) -> ClientHello | str | None:
    """Feed `data` in pieces of `step` bytes; return the hello or the error."""
    reader = ClientHelloReader()
    try:
        for start in range(0, len(data), step):
            hello = reader.feed(data[start : start + step])
            if hello is not None:
                return hello
    except ClientHelloError as error:
        return str(error)
    return None


def tls_handshakes(data: bytes) -> None:
    """Whatever a client sends to a TLS frontend, it receives records, or an error in plain HTTP."""
    step = data[0] + 1 if data else 1
    balancer = MemoryBalancer()
    frontend = balancer.service.default_frontend
    frontend._set_contexts(_Contexts())
    transport = MemoryTransport(frontend.tls_factory.build_channel("192.0.2.1"))
    transport.protocol.makeConnection(transport)
    try:
        for i in range(1, len(data), step):
            if transport.closing:
                break
            transport.protocol.dataReceived(data[i : i + step])
        sent = transport.read()
        record = sent[:1] in (b"", b"\x15", b"\x16")
        assert record or sent.startswith(b"HTTP/1.1 400 "), sent
        if not transport.closing:
            transport.protocol.readConnectionLost()
        assert transport.closing
        transport.protocol.connectionLost(connectionDone)
        assert not frontend.has_connections
    finally:
        balancer.stop()


class _Contexts:
    """Selects the same context for all clients."""

    def select(self, hello: ClientHello) -> ssl.SSLContext:
        return server_context()


def forwarded_chains(data: bytes) -> None:
    """The element of a trusted proxy comes first, whatever a client has sent before it."""
    for parse, last in ((iter_x_forwarded_for, b"192.0.2.1"), (iter_forwarded, b"for=192.0.2.1")):
        addresses = list(parse(data + b", " + last))
        assert addresses[0] == "192.0.2.1", addresses
        for address in addresses:
            assert address is None or normalize_ip(address) == address, address


def proxy_headers(data: bytes) -> None:
    """A PROXY header gives canonical addresses, and survives being encoded again."""
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
        reparsed = parse_proxy_header(encode_proxy_header(version, connection))
        assert reparsed is not None
        assert reparsed[0] == connection


def response_heads(data: bytes) -> None:
    """A response head gives the same result with empty and with filled caches."""
    data = data.split(b"\r\n\r\n")[0] + b"\r\n"
    outcomes: list[ResponseHead | None] = []
    for parser in (ResponseHeadParser(), _WARM_RESPONSES, _WARM_RESPONSES):
        try:
            outcomes.append(parser.parse(data))
        except ResponseError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1] == outcomes[2], outcomes


def chunked_bodies(data: bytes) -> None:
    """A chunked body gives the same result in one piece and in several."""
    step = data[0] % 7 + 1 if data else 1
    whole = _read_chunked([data[1:]])
    pieces = _read_chunked([data[i : i + step] for i in range(1, len(data), step)])
    if whole is None or pieces is None:
        # In one piece, the content before an error is lost: compare the errors only.
        assert whole is None and pieces is None, (whole, pieces)
    else:
        assert whole == pieces, (whole, pieces)


def _read_chunked(pieces: list[bytes]) -> tuple[bytes, bool, bytes, bytes] | None:
    """Return content, completeness, trailers and trailing data; `None` for an invalid body."""
    reader = ChunkedReader()
    content = trailing_data = b""
    for piece in pieces:
        if reader.complete:
            trailing_data += piece
            continue
        try:
            content += reader.feed(piece)
        except BodyError:
            return None
    return content, reader.complete, reader.trailers, reader.trailing_data + trailing_data


def client_streams(data: bytes) -> None:
    """Whatever a client sends, a server receives valid requests, the last perhaps incomplete."""
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
    """Accept new connections, collect what servers have received, answer complete requests."""
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
    """Whatever a server sends, a client receives a valid response, or its connection is closed."""
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
        truncated = client.transport.closing
    finally:
        balancer.stop()
    check_response(received, truncated)


def header_blocks(data: bytes) -> None:
    """Header blocks give the same results on new connections, memoised or not."""
    step = data[0] % 32 + 1 if data else 1
    blocks = [data[i : i + step] for i in range(1, len(data), step)]
    shared = SharedTables(_keep_fields, _replace_path, max_entries=4)
    expected = _decode_blocks(SharedTables(_keep_fields), blocks)
    for tables in (shared, shared, shared, _WARM_TABLES, _WARM_TABLES):
        outcomes = _decode_blocks(tables, blocks)
        assert outcomes == expected, (outcomes, expected)


_Fields = tuple[tuple[bytes, bytes], ...]


def _keep_fields(fields: Sequence[tuple[bytes, bytes]]) -> _Fields:
    return tuple(fields)


def _replace_path(fields: _Fields, path: bytes) -> _Fields:
    return tuple((name, path if name == b":path" else value) for name, value in fields)


def _decode_blocks(shared: SharedTables[_Fields], blocks: list[bytes]) -> list[_Fields | str]:
    """Decode blocks on one connection; return results and errors, up to the first invalid block."""
    decoder = HeaderDecoder(shared, HeaderLimits(max_list_size=500, max_fields=8))
    outcomes: list[_Fields | str] = []
    for block in blocks:
        try:
            outcomes.append(decoder.decode(block))
        except HeaderListTooLarge:
            outcomes.append("too large")
        except HpackError:
            outcomes.append("invalid")
            break
    return outcomes


# Shared tables that hold all inputs so far.
_WARM_TABLES = SharedTables(_keep_fields, _replace_path, max_entries=256)


def check_requests(stream: bytes, min_requests: int = 0) -> None:
    """Check that h11 parses `stream` as requests, the last perhaps incomplete."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_EVENT_SIZE)
    connection.receive_data(stream)
    requests = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            requests += 1
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
            # h11 treats an empty stream as closed.
            assert not stream
            break
    assert requests >= min_requests, stream


def check_response(stream: bytes, truncated: bool) -> None:
    """Check that h11 parses `stream` as the response to a GET, incomplete only if `truncated`."""
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


TARGETS: tuple[Callable[[bytes], None], ...] = (
    request_heads,
    response_heads,
    chunked_bodies,
    client_streams,
    server_streams,
    forwarded_chains,
    proxy_headers,
    client_hellos,
    tls_handshakes,
    header_blocks,
    *HTTP2_TARGETS,
)

# Initial corpus: for each target valid inputs, and some that are almost valid.
SEEDS: tuple[bytes, ...] = (
    b"\x09\x05\x82\x87\x04\x02/a\x82\x87\x04\x02/b\x82\x87\x04\x02/c\x41\x03a.b\xbe\x20\x40\x01a\x01b\x82",
    b"\x09\x11\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff\x60\x03a=1\x14\x01/\xbe\xbf",
    b"\x08\xff" + SMALL_CLIENT_HELLO,
    b"\x08\x10GET / HTTP/1.1\r\n\r\n",
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
    *(
        bytes((len(TARGETS) - len(HTTP2_TARGETS) + number,)) + seed
        for number, seeds in enumerate(HTTP2_SEEDS)
        for seed in seeds
    ),
)
