"""HTTP/1.1 exchanges checked with h11, an independent implementation, on both sides.

Whatever the pieces in which the bytes arrive, the received messages equal the sent ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import h11
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.body import FORBIDDEN_TRAILERS
from balancebeam.protocols.http1.fields import REQUEST_KINDS, RESPONSE_KINDS
from tests.helpers.memory import MemoryBalancer, Peer

LIMIT = 200_000

Fields = Sequence[tuple[bytes, bytes]]

# Headers that a proxy adds, and headers that it may change.
_ADDED = {b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"date"}
_CHANGED = {b"connection", b"transfer-encoding", b"content-length"}

_TOKEN = st.text(
    "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-.^`|~", min_size=1, max_size=12
)
_NAMES = (
    _TOKEN.map(str.encode)
    .filter(lambda name: name.lower() not in {*REQUEST_KINDS, *RESPONSE_KINDS, *_ADDED, b"expect"})
    .filter(lambda name: name.lower() not in FORBIDDEN_TRAILERS)
)
_VALUES = st.binary(max_size=20).map(
    lambda data: bytes(b for b in data if b >= 0x20 and b != 0x7F).strip()
)
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=6)
_BODIES = st.binary(max_size=400)
_TARGETS = st.text("abcXYZ019/._~%-!$&'()*+,;=:@", max_size=30).map(
    lambda text: b"/" + text.encode()
)


@frozen
class Message:
    """A message as h11 parses it; headers in order, without the ones that a proxy changes."""

    first: tuple[object, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]


def parse_message(stream: bytes, reader: h11.Connection) -> Message:
    """The one message in `stream`; bytes after it are an error."""
    reader.receive_data(stream)
    first: tuple[object, ...] = ()
    fields: Fields = ()
    body = b""
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Request):
            first, fields = (event.method, event.target), event.headers
        elif isinstance(event, h11.Response):
            first, fields = (event.status_code, event.reason), event.headers
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert not reader.trailing_data[0], stream
            return Message(
                first, _without_proxy_headers(fields), body, _without_proxy_headers(event.headers)
            )
        else:
            raise AssertionError(f"incomplete message: {event!r} of {stream!r}")


def _without_proxy_headers(fields: Fields) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that a proxy forwards unchanged."""
    return tuple((n, v) for n, v in fields if n.lower() not in _ADDED | _CHANGED)


def parse_request(stream: bytes) -> Message:
    """The request in `stream`."""
    return parse_message(stream, h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT))


def parse_response(stream: bytes) -> Message:
    """The response in `stream`."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    return parse_message(stream, reader)


def build_message(
    first: bytes, fields: Fields, body: bytes, cuts: Sequence[int], trailers: Fields
) -> bytes:
    """A message whose body is chunked at `cuts`, or has a Content-Length if there are none."""
    lines = [first, *(b"%b: %b" % field for field in fields)]
    if not cuts:
        lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body
    lines.append(b"Transfer-Encoding: chunked")
    framed = b""
    offsets = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, end in zip(offsets, offsets[1:]):
        framed += b"%x\r\n%b\r\n" % (end - start, body[start:end])
    framed += b"0\r\n" + b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"
    return b"\r\n".join(lines) + b"\r\n\r\n" + framed


def pieces(data: bytes, positions: Sequence[int]) -> list[bytes]:
    """`data`, split at `positions`."""
    cuts = sorted({position % (len(data) + 1) for position in positions} | {0, len(data)})
    return [data[start:end] for start, end in zip(cuts, cuts[1:])]


def exchange(request: Sequence[bytes], response: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The bytes that a server and a client receive for messages sent in these pieces."""
    balancer = MemoryBalancer()
    try:
        client = balancer.client()
        client.send(*request)
        server: Peer = balancer.accept()
        forwarded = server.received()
        server.send(*response)
        return forwarded, client.received()
    finally:
        balancer.stop()


class RoundTripTests(SynchronousTestCase):
    """Received messages equal the sent ones."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"X-Y"]),
        _TARGETS,
        _FIELDS,
        _BODIES,
        st.lists(st.integers(0, 400), max_size=4),
        st.lists(st.tuples(_NAMES, _VALUES), max_size=2),
        st.lists(st.integers(0, 2000), max_size=5),
        st.integers(200, 599).filter(lambda status: status not in (204, 205, 304)),
    )
    def test_random_messages(
        self,
        method: bytes,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes,
        cuts: list[int],
        trailers: list[tuple[bytes, bytes]],
        positions: list[int],
        status: int,
    ) -> None:
        """Random messages in random pieces arrive unchanged."""
        first = b"%b %b HTTP/1.1\r\nHost: a" % (method, target)
        request = build_message(first, fields, body, cuts, trailers)
        response = build_message(b"HTTP/1.1 %d Fine" % status, fields, body[::-1], cuts, trailers)
        forwarded, received = exchange(pieces(request, positions), pieces(response, positions))
        self.assertEqual(parse_request(forwarded), parse_request(request))
        self.assertEqual(parse_response(received), parse_response(response))

    def test_split_at_every_byte(self) -> None:
        """Messages that arrive in two pieces, split at any byte, arrive unchanged."""
        field = [(b"X-One", b"1"), (b"x-two", b"\xff 2")]
        bodies = ((b"", ()), (b"hello\r\n\r\nworld", ()), (b"0\r\n\r\nabc", (1, 5)), (b"", (3,)))
        for body, cuts in bodies:
            request = build_message(b"POST /a?b HTTP/1.1\r\nHost: a", field, body, cuts, field[:1])
            response = build_message(b"HTTP/1.1 201 Made", field, body, cuts, field[:1])
            expected = parse_request(request), parse_response(response)
            for position in range(1, max(len(request), len(response))):
                forwarded, received = exchange(
                    [piece for piece in (request[:position], request[position:]) if piece],
                    [piece for piece in (response[:position], response[position:]) if piece],
                )
                actual = parse_request(forwarded), parse_response(received)
                self.assertEqual(actual, expected, position)

    def test_one_byte_at_a_time(self) -> None:
        """Messages that arrive byte by byte arrive unchanged."""
        for cuts in ((), (2, 4)):
            request = build_message(
                b"PUT / HTTP/1.1\r\nHost: a", [(b"A", b"b")], b"abcdef", cuts, ()
            )
            response = build_message(b"HTTP/1.1 200 OK", [(b"A", b"b")], b"abcdef", cuts, ())
            forwarded, received = exchange(
                [bytes([byte]) for byte in request], [bytes([byte]) for byte in response]
            )
            self.assertEqual(parse_request(forwarded), parse_request(request))
            self.assertEqual(parse_response(received), parse_response(response))
