"""Header blocks of requests to HTTP/2 servers, decoded by the `hpack` library."""

from __future__ import annotations

from hpack import Decoder, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http2.request_block import MAX_ENTRIES, RequestEncoder

HEAD = b"GET /a?b HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n"


def decode(block: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a block, of a connection that has sent nothing before."""
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]


class RequestEncoderTests(SynchronousTestCase):
    """The text of HTTP/1.1 becomes fields of HTTP/2."""

    def test_head(self) -> None:
        """Request line and Host become pseudo-fields, and names lower case."""
        for secure, scheme in ((False, b"http"), (True, b"https")):
            encoder = RequestEncoder(secure)
            expected = [
                (b":method", b"GET"),
                (b":scheme", scheme),
                (b":path", b"/a?b"),
                (b":authority", b"example.org"),
                (b"accept", b"*/*"),
            ]
            for _ in range(2):
                self.assertEqual(decode(encoder.encode(HEAD)), expected)

    def test_host_behind_other_fields(self) -> None:
        """`:authority` precedes the other fields wherever Host is."""
        head = b"GET / HTTP/1.1\r\nAccept: */*\r\nhost: a\r\n\r\n"
        names = [name for name, _ in decode(RequestEncoder(False).encode(head))]
        self.assertEqual(names, [b":method", b":scheme", b":path", b":authority", b"accept"])

    def test_connection_specific_fields(self) -> None:
        """They are dropped; TE is kept if it is "trailers"."""
        head = (
            b"POST * HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n"
            b"Upgrade: x\r\nTE: trailers\r\nKeep-Alive: 1\r\nTE: gzip\r\n\r\n"
        )
        fields = decode(RequestEncoder(False).encode(head))
        self.assertEqual(fields[4:], [(b"te", b"trailers")])

    def test_credentials(self) -> None:
        """They are never indexed, and not kept in a memo."""
        encoder = RequestEncoder(False)
        for secret in (b"first-secret", b"second-secret"):
            head = HEAD[:-2] + b"Authorization: %b\r\nCookie: %b\r\n\r\n" % (secret, secret)
            fields = list(Decoder().decode(encoder.encode(head), raw=True))
            self.assertTrue(all(isinstance(f, NeverIndexedHeaderTuple) for f in fields[-2:]))
            self.assertEqual(bytes(fields[-1][1]), secret)
        for memo in (encoder._fields, encoder._lines, encoder._request_lines):
            self.assertNotIn(b"secret", b"".join([*memo, *memo.values()]))

    def test_memos_are_bounded(self) -> None:
        """Requests that all differ do not fill the memory."""
        encoder = RequestEncoder(False)
        for number in range(3 * MAX_ENTRIES):
            encoder.encode(b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % (number, number))
        encoder.encode(b"GET /%b HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 5000, b"y" * 5000))
        for memo in (encoder._fields, encoder._lines, encoder._request_lines):
            self.assertLessEqual(len(memo), MAX_ENTRIES)
            self.assertLess(max(map(len, memo)), 2000)

    def test_extended_connect(self) -> None:
        """An upgrade becomes CONNECT with `:protocol`, without the key."""
        head = HEAD[:-2] + b"Sec-WebSocket-Key: k\r\nUpgrade: websocket\r\n\r\n"
        block, key = RequestEncoder(True).encode_connect(head, b"websocket")
        self.assertEqual(key, b"k")
        fields = decode(block)
        self.assertIn((b":protocol", b"websocket"), fields)
        self.assertEqual(fields[0], (b":method", b"CONNECT"))
        self.assertEqual(fields[-1], (b"accept", b"*/*"))

    @given(st.lists(st.sampled_from([b"A: 1", b"b: 2", b"Cookie: x", b"C:", b"TE: x"]), max_size=6))
    def test_order_is_kept(self, lines: list[bytes]) -> None:
        """Fields keep their order and number, memoised or not."""
        encoder = RequestEncoder(False)
        head = b"\r\n".join([b"GET / HTTP/1.1", b"Host: h", *lines, b"", b""])
        expected = [
            (name.lower(), value.strip())
            for name, _, value in (line.partition(b":") for line in lines)
            if name != b"TE"
        ]
        for _ in range(2):
            self.assertEqual(decode(encoder.encode(head))[4:], expected)
