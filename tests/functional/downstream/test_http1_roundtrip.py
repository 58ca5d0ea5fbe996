"""
Whole exchanges, with h11 as an independent reader on both sides: what arrives
is what was sent, however it was cut into pieces on the way.
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

# What a proxy adds, or may change.
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
    lambda octets: bytes(o for o in octets if o >= 0x20 and o != 0x7F).strip()
)
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=6)
_BODIES = st.binary(max_size=400)
_TARGETS = st.text("abcXYZ019/._~%-!$&'()*+,;=:@", max_size=30).map(
    lambda text: b"/" + text.encode()
)


@frozen
class Message:
    """A message as h11 reads it; fields in order, without those that a proxy makes."""

    first: tuple[object, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]


def read(stream: bytes, reader: h11.Connection) -> Message:
    """The one message in `stream`; what follows it is an error."""
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
            return Message(first, _kept(fields), body, _kept(event.headers))
        else:
            raise AssertionError(f"not a whole message: {event!r} of {stream!r}")


def _kept(fields: Fields) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((n, v) for n, v in fields if n.lower() not in _ADDED | _CHANGED)


def read_request(stream: bytes) -> Message:
    return read(stream, h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT))


def read_response(stream: bytes) -> Message:
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    return read(stream, reader)


def write(
    first: bytes, fields: Fields, body: bytes, cuts: Sequence[int], trailers: Fields
) -> bytes:
    """A message; chunked at `cuts`, or with a length if there are none."""
    lines = [first, *(b"%b: %b" % field for field in fields)]
    if not cuts:
        lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body
    lines.append(b"Transfer-Encoding: chunked")
    framed = b""
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, end in zip(places, places[1:]):
        framed += b"%x\r\n%b\r\n" % (end - start, body[start:end])
    framed += b"0\r\n" + b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"
    return b"\r\n".join(lines) + b"\r\n\r\n" + framed


def pieces(data: bytes, places: Sequence[int]) -> list[bytes]:
    cuts = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in zip(cuts, cuts[1:])]


def exchange(request: Sequence[bytes], response: Sequence[bytes]) -> tuple[bytes, bytes]:
    """What a server gets of `request`, and a client of `response`, sent in these pieces."""
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
    """What was sent arrives."""

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
    def test_messages_equal_what_was_sent(
        self,
        method: bytes,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes,
        cuts: list[int],
        trailers: list[tuple[bytes, bytes]],
        places: list[int],
        status: int,
    ) -> None:
        first = b"%b %b HTTP/1.1\r\nHost: a" % (method, target)
        request = write(first, fields, body, cuts, trailers)
        response = write(b"HTTP/1.1 %d Fine" % status, fields, body[::-1], cuts, trailers)
        forwarded, answered = exchange(pieces(request, places), pieces(response, places))
        self.assertEqual(read_request(forwarded), read_request(request))
        self.assertEqual(read_response(answered), read_response(response))

    def test_split_at_every_octet(self) -> None:
        field = [(b"X-One", b"1"), (b"x-two", b"\xff 2")]
        bodies = ((b"", ()), (b"hello\r\n\r\nworld", ()), (b"0\r\n\r\nabc", (1, 5)), (b"", (3,)))
        for body, cuts in bodies:
            request = write(b"POST /a?b HTTP/1.1\r\nHost: a", field, body, cuts, field[:1])
            response = write(b"HTTP/1.1 201 Made", field, body, cuts, field[:1])
            expected = read_request(request), read_response(response)
            for place in range(1, max(len(request), len(response))):
                forwarded, answered = exchange(
                    [piece for piece in (request[:place], request[place:]) if piece],
                    [piece for piece in (response[:place], response[place:]) if piece],
                )
                found = read_request(forwarded), read_response(answered)
                self.assertEqual(found, expected, place)

    def test_one_octet_at_a_time(self) -> None:
        for cuts in ((), (2, 4)):
            request = write(b"PUT / HTTP/1.1\r\nHost: a", [(b"A", b"b")], b"abcdef", cuts, ())
            response = write(b"HTTP/1.1 200 OK", [(b"A", b"b")], b"abcdef", cuts, ())
            forwarded, answered = exchange(
                [bytes([octet]) for octet in request], [bytes([octet]) for octet in response]
            )
            self.assertEqual(read_request(forwarded), read_request(request))
            self.assertEqual(read_response(answered), read_response(response))
