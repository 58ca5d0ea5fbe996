"""
Fuzz targets of HTTP/2: frames, lists of fields, whole connections, and responses of servers.

h11 reads whatever reaches a server, and `hpack` and `h2` whatever reaches a client.
"""

from __future__ import annotations

from collections.abc import Callable

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, TrailersReceived
from h2.exceptions import ProtocolError
from hpack import Decoder

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http2 import frames as f
from balancebeam.protocols.http2.hpack_encoder import encode_fields
from balancebeam.protocols.http2.request_fields import (
    ExtendedConnect,
    RequestInterpreter,
    TrailerSection,
)
from balancebeam.protocols.http2.settings import encode_settings
from balancebeam.tls.interfaces import TlsInfo
from tests.helpers.memory import OK, MemoryBalancer, Peer

MAX_EVENT_SIZE = 200_000

TLS = TlsInfo("TLSv1.3", False, "h2", "example.org", None)
BASE = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.org"),
    (b":path", b"/"),
)
POST = ((b":method", b"POST"), *BASE[1:])

# Header blocks of the actions of `http2_actions`: valid ones, and each kind of invalid one.
BLOCKS: tuple[bytes, ...] = (
    encode_fields(BASE),
    encode_fields(POST),
    encode_fields((*POST, (b"content-length", b"3"))),
    encode_fields(((b":method", b"HEAD"), *BASE[1:])),
    encode_fields(((b"x-sum", b"1"),)),
    encode_fields((*POST, (b"te", b"trailers"), (b"expect", b"100-continue"))),
    encode_fields(
        (
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            *BASE[1:],
            (b"sec-websocket-version", b"13"),
        )
    ),
    encode_fields(
        (
            *((b":method", b"CONNECT"), (b":protocol", b"websocket"), *BASE[1:]),
            (b"content-length", b"5"),
        )
    ),
    encode_fields((*BASE, (b"connection", b"close"))),
    encode_fields((*BASE, (b"Upper", b"x"))),
    encode_fields((*BASE, (b"cookie", b"a=1"), (b"cookie", b"b=2"))),
    # With indexing, with a reference, and with a size update.
    b"\x82\x87\x84\x41\x0bexample.org\x40\x01x\x03abc",
    b"\x82\x87\x84\xbf\xbe",
    b"\x20\x82\x87\x84\x41\x0bexample.org",
    b"\xff\xff\xff",
)


def http2_field_lists(data: bytes) -> None:
    """Fields that are accepted become a request that h11 reads as the same request."""
    fields: list[tuple[bytes, bytes]] = list(BASE) if data[:1] == b"+" else []
    for line in data[1:].split(b"\x02"):
        name, _, value = line.partition(b"\x01")
        fields.append((name, value))
    check_fields(fields)


def check_fields(fields: list[tuple[bytes, bytes]]) -> bool:
    """Check that h11 reads what is made of `fields` as the same; return whether it is a request."""
    try:
        section = RequestInterpreter(RequestHeadParser(secure=True), secure=True).interpret(fields)
    except RequestError:
        return False
    if isinstance(section, TrailerSection):
        _check_lines(section.text)
        return False
    head = section.head if isinstance(section, ExtendedConnect) else section
    assert isinstance(head, RequestHead)
    values = dict(reversed(fields))
    request, _ = _parse_one(head.forward_bytes + b"\r\n")
    if isinstance(section, RequestHead):
        assert request.method == values[b":method"], fields
    assert request.target == values[b":path"], fields
    hosts = [value for name, value in request.headers if name == b"host"]
    assert hosts == [values.get(b":authority", values.get(b"host"))], fields
    forbidden = {b"transfer-encoding", b"keep-alive", b"proxy-connection"}
    assert not forbidden & {name for name, _ in request.headers}, fields
    return True


def _check_lines(text: bytes) -> None:
    _, _ = _parse_one(b"GET / HTTP/1.1\r\nHost: a\r\n" + text + b"\r\n")


def _parse_one(stream: bytes) -> tuple[h11.Request, h11.Connection]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_EVENT_SIZE)
    connection.receive_data(stream)
    request = connection.next_event()
    assert isinstance(request, h11.Request), stream
    return request, connection


def http2_bytes(data: bytes) -> None:
    """Any bytes behind the preface: valid requests for servers, valid frames for the client."""
    step = data[0] + 1 if data else 1
    pieces = [data[i : i + step] for i in range(1, len(data), step)]
    _run_client([f.PREFACE + encode_settings(()), *pieces])


def http2_actions(data: bytes) -> None:
    """Sequences of frames, most of them valid."""
    pieces = [f.PREFACE + encode_settings(())]
    stream = 1
    position = 0
    while position + 2 < len(data):
        action, argument = data[position], data[position + 1]
        payload = data[position + 2 : position + 2 + argument % 24]
        position += 2
        if action % 4 == 0:
            stream += 2
            block = BLOCKS[argument % len(BLOCKS)]
            pieces.append(f.encode_frame(f.HEADERS, 4 | (action >> 2 & 1), stream, block))
            continue
        if action % 4 == 1:
            position += argument % 24
            pieces.append(f.encode_frame(f.DATA, action >> 2 & 1, stream, payload))
            continue
        target = (0, stream, max(1, stream - 2), stream + 2)[action >> 2 & 3]
        if action % 4 == 2:
            pieces.append(_control_frame(action >> 4, target, argument))
        else:
            position += argument % 24
            pieces.append(f.encode_frame(action >> 4, argument & 0x2D, target, payload))
    _run_client(pieces)


def _control_frame(kind: int, stream: int, argument: int) -> bytes:
    """Return a frame that is valid, at least on some stream."""
    number = argument.to_bytes(4, "big")
    frames: tuple[bytes, ...] = (
        f.encode_frame(f.RST_STREAM, 0, stream, number),
        f.encode_frame(f.WINDOW_UPDATE, 0, stream, number),
        f.encode_frame(f.PING, argument & 1, 0, bytes(8)),
        f.encode_frame(f.PRIORITY, 0, stream, number + b"\0"),
        encode_settings(((4, argument), (1, argument))),
        encode_settings(((4, 2**31 - 1 - argument),)),
        f.encode_headers(stream, BLOCKS[argument % len(BLOCKS)], True, 5),
        f.encode_frame(f.GOAWAY, 0, 0, bytes(8)),
        f.encode_frame(f.HEADERS, 0x2D, stream, b"\2" + number + b"\0" + BLOCKS[0] + b"\0\0"),
        f.encode_frame(f.DATA, 9, stream, b"\2abc\0\0"),
        encode_settings(()),
    )
    return frames[kind % len(frames)]


def _run_client(pieces: list[bytes]) -> None:
    """Send `pieces` to a balancer whose servers respond, and check what all of them receive."""
    balancer = MemoryBalancer(max_body=1000)
    client = balancer.client(tls=TLS)
    received: list[bytes] = []
    servers: list[Peer] = []
    output = b""
    try:
        for number, piece in enumerate(pieces):
            if client.transport.closing or not client.transport.reading:
                break
            client.send(piece)
            output += client.received()
            if number % 3 == 2:
                _respond(balancer, servers, received)
        _respond(balancer, servers, received)
        balancer.advance(2)
        if not client.transport.closing:
            client.half_close()
        output += client.received()
        for server in balancer.servers:
            assert server.in_flight == 0
        if client.protocol.output._ready:
            raise AssertionError("content waits on a closed connection")
    finally:
        balancer.stop()
    check_frames(output)
    for stream in received:
        check_requests(stream)


def _respond(balancer: MemoryBalancer, servers: list[Peer], received: list[bytes]) -> None:
    """Accept new connections, collect what servers have received, respond to some requests."""
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
        # Early responses too: every third connection responds before the end of the body.
        if data and not server.transport.closing and exchange is not None:
            complete = exchange.body_complete or index % 3 == 2
            server.send(OK if complete else b"HTTP/1.1 103 Early Hints\r\n\r\n")


def check_frames(data: bytes) -> None:
    """Check that `data` is whole frames, with header blocks that `hpack` decodes."""
    decoder = Decoder()
    ended: set[int] = set()
    while data:
        word, flags, stream = f.FRAME_HEADER.unpack_from(data)
        size, kind = word >> 8, word & 0xFF
        payload, data = data[9 : 9 + size], data[9 + size :]
        assert len(payload) == size <= f.DEFAULT_MAX_FRAME_SIZE
        if kind in (f.HEADERS, f.DATA):
            assert stream & 1 and stream not in ended, (stream, ended)
            if flags & f.END_STREAM:
                ended.add(stream)
        if kind == f.RST_STREAM:
            ended.add(stream)
        if kind == f.HEADERS:
            assert flags & f.END_HEADERS
            check_block(decoder, payload)


def check_block(decoder: Decoder, block: bytes) -> None:
    """Check that `block` holds what RFC 9113, 8.2 and 8.3.2 allow in responses."""
    for name, value in decoder.decode(block, raw=True):
        assert name == name.lower(), name
        assert not set(b"\r\n\0") & set(name + value), (name, value)
        assert value == value.strip(b" \t"), value
        assert name not in (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade"), name
        assert name[:1] != b":" or name == b":status", name


def check_requests(stream: bytes) -> None:
    """Check that h11 parses `stream` as requests, the last perhaps incomplete."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_EVENT_SIZE)
    connection.receive_data(stream)
    while stream:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            if connection.their_state is not h11.DONE:
                return
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        elif event is h11.NEED_DATA or event is h11.PAUSED:
            return


def http2_responses(data: bytes) -> None:
    """Whatever a server sends, `h2` accepts what the client receives."""
    step = data[0] + 1 if data else 1
    balancer = MemoryBalancer()
    peer = balancer.client(tls=TLS)
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    method = b"HEAD" if step % 8 == 0 else b"GET"
    client.send_headers(1, [(b":method", method), *BASE[1:]], end_stream=True)
    try:
        peer.send(client.data_to_send())
        server = balancer.accept()
        for i in range(1, len(data), step):
            if server.transport.closing or not server.transport.reading:
                break
            server.send(data[i : i + step])
        if not server.transport.closing:
            server.half_close()
        output = peer.received()
    finally:
        balancer.stop()
    check_frames(output)
    try:
        events = client.receive_data(output)
    except ProtocolError as error:
        raise AssertionError((data, output)) from error
    for event in events:
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            assert event.headers is not None
        elif isinstance(event, DataReceived):
            assert method != b"HEAD" and event.data is not None


HTTP2_TARGETS: tuple[Callable[[bytes], None], ...] = (
    http2_field_lists,
    http2_bytes,
    http2_actions,
    http2_responses,
)

# One list per target, in the same order, without the byte that selects the target.
HTTP2_SEEDS: tuple[tuple[bytes, ...], ...] = (
    (
        b"+accept\x01*/*\x02cookie\x01a=1\x02cookie\x01b=2",
        b"+content-length\x013\x02te\x01trailers\x02expect\x01100-continue",
        b"+host\x01example.org:443\x02x-forwarded-for\x01192.0.2.9",
        b"-:method\x01OPTIONS\x02:scheme\x01https\x02:path\x01*\x02:authority\x01a:1",
        b"-:method\x01CONNECT\x02:protocol\x01websocket\x02:scheme\x01https\x02:path\x01/"
        b"\x02:authority\x01[::1]:1\x02sec-websocket-version\x0113",
        b"-x-sum\x011\x02content-length\x013",
    ),
    (
        b"\xff" + f.encode_headers(1, BLOCKS[0], True),
        b"\x10" + f.encode_headers(1, BLOCKS[2]) + f.encode_data(1, b"abc", True),
        b"\x05" + f.encode_headers(1, BLOCKS[11], True, 4) + f.encode_rst_stream(1, 8),
    ),
    (
        b"\x04\x00\x02\x08\x04\x09",
        b"\x00\x01\x01\x03abc\x05\x03def\x04\x04\x04\x02",
        b"\x00\x06\x01\x05hello\x12\x05\x06\x01\x0e\x07\x22\x01",
        b"\x04\x0a\x04\x0b\x04\x0c\x42\x20\x52\x01\x6a\x03\x86\x00\x9a\x00",
    ),
    (
        b"\xff" + OK,
        b"\x07HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
        b"\r\nTrailer: X\r\n\r\n1\r\na\r\n0\r\nX: 1\r\n\r\n",
        b"\x30HTTP/1.0 200 OK\r\nConnection: close, X\r\nX: y\r\nKeep-Alive: 1\r\n\r\nabc",
        b"\x20HTTP/1.1 204 No Content\r\nSet-Cookie: a\r\nUpgrade: x\r\nTE: x\r\n\r\n",
    ),
)
