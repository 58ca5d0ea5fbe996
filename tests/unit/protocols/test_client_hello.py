"""Server names and application protocols in TLS ClientHello messages."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.client_hello import ClientHello, ClientHelloError, ClientHelloReader

LIMIT = 16 * 1024


def openssl_hello(
    name: str | None, *, tls12: bool = False, alpn: Sequence[str] = ("h2", "http/1.1")
) -> bytes:
    """Return the first bytes that OpenSSL sends for a server name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLError:
        # The handshake continues with the server's response.
        pass
    else:
        raise AssertionError("handshake completed without a server")
    return outgoing.read()


def vector(size: int, content: bytes) -> bytes:
    """Encode a vector: `content` after its length in `size` bytes."""
    return len(content).to_bytes(size, "big") + content


def record(fragment: bytes, version: int = 0x0301) -> bytes:
    """Encode a handshake record."""
    return struct.pack("!BH", 22, version) + vector(2, fragment)


def message(body: bytes) -> bytes:
    """Encode a ClientHello message with this body."""
    return b"\x01" + vector(3, body)


def name_entry(name: bytes, kind: int = 0) -> bytes:
    """Encode one entry of a ServerNameList."""
    return bytes((kind,)) + vector(2, name)


def name_extension(*entries: bytes) -> bytes:
    """Encode the extension server_name with a list of entries."""
    return extension(0, vector(2, b"".join(entries)))


def extension(kind: int, content: bytes) -> bytes:
    """Encode an extension."""
    return struct.pack("!H", kind) + vector(2, content)


def alpn_extension(*names: bytes) -> bytes:
    """Encode the extension ALPN with a list of names."""
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


UP_TO_SUITES = b"\x03\x03" + bytes(32) + vector(1, b"s" * 32) + vector(2, b"\x13\x01")
UP_TO_COMPRESSION = UP_TO_SUITES + vector(1, b"\0")


def hello_message(*extensions: bytes) -> bytes:
    """Encode a ClientHello message with these extensions."""
    return message(UP_TO_COMPRESSION + vector(2, b"".join(extensions)))


def records(message: bytes, sizes: Iterable[int]) -> bytes:
    """Encode `message` in records of these sizes; the last record holds the rest."""
    result = b""
    for size in sizes:
        if size < len(message):
            result += record(message[:size])
            message = message[size:]
    return result + record(message)


def parse(data: bytes) -> ClientHello | None:
    """Parse `data` in one call."""
    return ClientHelloReader().feed(data)


def parse_in_pieces(data: bytes, step: int = 1) -> ClientHello | None:
    """Parse `data` in pieces of `step` bytes, until there is a result."""
    reader = ClientHelloReader()
    for start in range(0, len(data), step):
        result = reader.feed(data[start : start + step])
        if result is not None:
            return result
    return None


def outcome(data: bytes, step: int) -> str:
    """Return the result or the error as text, for comparison."""
    try:
        return repr(parse_in_pieces(data, step))
    except ClientHelloError as error:
        return str(error)


ALPN = (b"h2", b"http/1.1")
EXPECTED = ClientHello("www.example.org", ALPN)
PLAIN = hello_message(
    extension(10, b"ab"),
    name_extension(name_entry(b"www.example.org")),
    alpn_extension(*ALPN),
    extension(0xFE0D, b"x" * 99),
)
OPENSSL = openssl_hello("www.example.org")


class ValidClientHelloTests(SynchronousTestCase):
    """Well-formed hellos."""

    def test_openssl(self) -> None:
        """Hellos of OpenSSL are parsed, with and without a name."""
        for tls12 in (False, True):
            self.assertEqual(parse(openssl_hello("www.example.org", tls12=tls12)), EXPECTED)
            self.assertEqual(parse(openssl_hello(None, tls12=tls12)), ClientHello(None, ALPN))
            self.assertEqual(
                parse(openssl_hello("a.b", tls12=tls12, alpn=())), ClientHello("a.b", ())
            )

    def test_upper_case(self) -> None:
        """Names are returned in lower case."""
        self.assertEqual(parse(openssl_hello("WWW.Example.ORG")), EXPECTED)
        self.assertEqual(
            parse(record(hello_message(name_extension(name_entry(b"WWW.Example.ORG"))))),
            ClientHello("www.example.org"),
        )

    def test_every_prefix(self) -> None:
        """No proper prefix of a hello has a result."""
        for data in (OPENSSL, record(PLAIN), records(PLAIN, (1, 2, 3, 50))):
            for length in range(len(data)):
                self.assertIsNone(parse(data[:length]), msg=str(length))
            self.assertEqual(parse(data), EXPECTED)

    def test_in_pieces(self) -> None:
        """The result does not depend on how the data arrives."""
        for data in (OPENSSL, record(PLAIN), records(PLAIN, (1, 2, 3, 50))):
            for step in (1, 2, 3, 5, 7, 100):
                self.assertEqual(parse_in_pieces(data, step), EXPECTED)

    def test_in_several_records(self) -> None:
        """A hello may be fragmented across records."""
        for data in (PLAIN, OPENSSL[5:]):
            for size in (1, 2, 3, 4, 5, 99, len(data) - 1):
                fragmented = records(data, [size] * len(data))
                self.assertEqual(parse(fragmented), EXPECTED)
                self.assertEqual(parse_in_pieces(fragmented), EXPECTED)

    def test_following_data(self) -> None:
        """Data after the hello is not parsed."""
        for rest in (b"\x17\x03\x03", b"GET / HTTP/1.1\r\n\r\n", bytes(2 * LIMIT)):
            self.assertEqual(parse(record(PLAIN) + rest), EXPECTED)
        self.assertEqual(parse(record(PLAIN + b"\x0b\0\0\0")), EXPECTED)

    def test_received_data(self) -> None:
        """All bytes that were fed are kept for the server."""
        reader = ClientHelloReader()
        data = records(PLAIN, (1, 2, 3)) + b"and more"
        for start in range(0, len(data), 100):
            reader.feed(data[start : start + 100])
        self.assertEqual(bytes(reader.received), data)

    def test_record_versions(self) -> None:
        """Any record version 3.x is accepted."""
        for version in (0x0300, 0x0301, 0x0302, 0x0303, 0x0304):
            self.assertEqual(parse(record(PLAIN, version)), EXPECTED)

    def test_without_extensions(self) -> None:
        """A hello without extensions has no name."""
        self.assertEqual(parse(record(message(UP_TO_COMPRESSION))), ClientHello(None))
        self.assertEqual(parse(record(hello_message())), ClientHello(None))

    def test_longest_hello(self) -> None:
        """A hello of 16 KiB with its record headers is accepted."""
        name = name_extension(name_entry(b"www.example.org")) + alpn_extension(*ALPN)
        padding = LIMIT - 5 - len(hello_message(name, extension(21, b"")))
        longest = record(hello_message(extension(21, bytes(padding)), name))
        self.assertEqual(len(longest), LIMIT)
        self.assertEqual(parse(longest), EXPECTED)
        self.assertEqual(parse_in_pieces(longest), EXPECTED)


class ServerNameTests(SynchronousTestCase):
    """Which names are usable."""

    def server_name(self, *entries: bytes) -> str | None:
        """Return the name of a hello with these entries."""
        result = parse(record(hello_message(name_extension(*entries))))
        assert result is not None
        return result.server_name

    def test_valid_names(self) -> None:
        """Names that can be in the DNS are returned without a final dot."""
        for name in (
            "a",
            "localhost",
            "xn--bcher-kva.example",
            "_service.a-b.example",
            "1.example",
            "1.2.3.4.5",
            "a" * 63 + ".example",
            ".".join(["a" * 49] * 5) + ".abc",
        ):
            self.assertEqual(self.server_name(name_entry(name.encode())), name)
            self.assertEqual(self.server_name(name_entry(name.upper().encode() + b".")), name)

    def test_longest_name(self) -> None:
        """A name has at most 253 characters."""
        longest = b".".join([b"a" * 63] * 3 + [b"b" * 61])
        self.assertEqual(len(longest), 253)
        self.assertEqual(self.server_name(name_entry(longest)), longest.decode())
        self.assertEqual(self.server_name(name_entry(longest + b".")), longest.decode())
        self.assertIsNone(self.server_name(name_entry(longest + b"b")))

    def test_invalid_names(self) -> None:
        """Addresses and names that cannot be in the DNS are ignored."""
        for name in (
            b"",
            b".",
            b"..",
            b".example",
            b"a..example",
            b"example..",
            b"a" * 64,
            b"a." + b"a" * 64,
            b"a\0.example",
            b"example\n",
            b"example.org:443",
            b"*.example.org",
            b"a b",
            b"a/b",
            b"b\xc3\xbccher.example",
            b"\xff",
            b"192.0.2.1",
            b"192.0.2.1.",
            b"2001:db8::1",
            b"[2001:db8::1]",
        ):
            self.assertIsNone(self.server_name(name_entry(name)), msg=repr(name))

    def test_name_types(self) -> None:
        """Only an entry of the type host_name counts."""
        self.assertIsNone(self.server_name())
        self.assertIsNone(self.server_name(name_entry(b"www.example.org", kind=7)))
        self.assertEqual(self.server_name(name_entry(b"x", kind=7), name_entry(b"a.b")), "a.b")
        self.assertEqual(
            self.server_name(name_entry(b"a.b"), name_entry(b"\0\xff", kind=255)), "a.b"
        )


class ApplicationProtocolTests(SynchronousTestCase):
    """The application protocols that the client offers."""

    def protocols(self, *extensions: bytes) -> tuple[bytes, ...]:
        """Return the protocols of a hello with these extensions."""
        result = parse(record(hello_message(*extensions)))
        assert result is not None
        return result.alpn

    def test_order(self) -> None:
        """The protocols are in the order of the client, before or after its server name."""
        name = name_extension(name_entry(b"a.b"))
        for names in ((b"h2", b"http/1.1"), (b"http/1.1", b"h2"), (b"x",), (b"x", b"y", b"x")):
            self.assertEqual(self.protocols(alpn_extension(*names), name), names)
            self.assertEqual(self.protocols(name, alpn_extension(*names)), names)

    def test_any_bytes(self) -> None:
        """A name has 1 to 255 bytes of any value, as the reserved names of RFC 8701."""
        names = (b"\x0a\x0a", b"H2", b"\0", b"x" * 255)
        self.assertEqual(self.protocols(alpn_extension(*names)), names)

    def test_openssl(self) -> None:
        """The protocols of OpenSSL's clients are returned as they were set."""
        for names in (("acme-tls/1",), ("http/1.1", "h2", "smtp"), ()):
            result = parse(openssl_hello("a.b", alpn=names))
            assert result is not None
            self.assertEqual(result.alpn, tuple(name.encode() for name in names))

    def test_without_extension(self) -> None:
        """Without the extension there are no protocols."""
        self.assertEqual(self.protocols(), ())
        self.assertEqual(self.protocols(name_extension(name_entry(b"a.b"))), ())


class InvalidClientHelloTests(SynchronousTestCase):
    """Bytes that are not a valid hello."""

    def rejected_at(self, data: bytes) -> int:
        """Check that `data` is rejected, and return after how many bytes."""
        self.assertRaises(ClientHelloError, parse, data)
        reader = ClientHelloReader()
        for length in range(1, len(data) + 1):
            try:
                reader.feed(data[length - 1 : length])
            except ClientHelloError:
                return length
        raise AssertionError("rejected in one piece only")

    def test_rejected_at_first_invalid_byte(self) -> None:
        """Other protocols and messages are rejected at their first invalid byte."""
        for data, length in (
            (b"GET / HTTP/1.1\r\n", 1),
            (b"SSH-2.0-OpenSSH\r\n", 1),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", 1),
            # SSL 2.0.
            (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", 1),
            # Alert, application data, ChangeCipherSpec.
            (b"\x15\x03\x01\x00\x02\x02\x28", 1),
            (b"\x17\x03\x03\x00\x02ab", 1),
            (b"\x14\x03\x03\x00\x01\x01", 1),
            # DTLS.
            (b"\x16\xfe\xfd\x00\x00", 2),
            (b"\x16\x02\x00\x00\x05", 2),
            # Records that are too long, and an empty record.
            (b"\x16\x03\x01\x41\x00", 4),
            (b"\x16\x03\x01\x40\x01", 5),
            (b"\x16\x03\x01\x00\x00", 5),
            # A ServerHello, a HelloRequest.
            (record(b"\x02" + PLAIN[1:]), 6),
            (record(b"\0\0\0\0"), 6),
            # Hellos that are too long.
            (record(b"\x01\x01\x00\x00" + bytes(99)), 7),
            (record(b"\x01\x00\x40\x00" + bytes(99)), 8),
            (record(b"\x01\x00\x3f\xf8" + bytes(99)), 9),
        ):
            self.assertEqual(self.rejected_at(data), length, msg=repr(data))

    def test_invalid_second_record(self) -> None:
        """An invalid record after the first one is rejected within its header."""
        first = record(PLAIN[:10])
        for rest in (
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x17\x03\x01\x00\x05",
            b"\x16\x04\x01\x00\x05",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x00",
        ):
            length = self.rejected_at(first + rest)
            self.assertLessEqual(length, len(first) + 5)
            self.assertGreater(length, len(first))

    def test_hello_that_is_too_long(self) -> None:
        """A hello that grows beyond 16 KiB by record headers is rejected."""
        fits = b"\x01" + (LIMIT - 9).to_bytes(3, "big")
        self.assertIsNone(parse(record(fits)))
        self.assertEqual(self.rejected_at(record(fits) + record(b"\x03")), 9 + 5)

    def test_hello_in_tiny_records(self) -> None:
        """The limit includes record headers."""
        data = b"\x01" + (8192).to_bytes(3, "big") + bytes(8192)
        length = self.rejected_at(b"".join(record(data[i : i + 1]) for i in range(len(data))))
        self.assertLess(length, LIMIT)

    def test_invalid_lengths(self) -> None:
        """Lengths that do not match the message are rejected."""
        for body in (
            b"",
            b"\x03\x03",
            b"\x03\x03" + bytes(32),
            b"\x03\x03" + bytes(32) + b"\x20" + bytes(31),
            b"\x03\x03" + bytes(32) + b"\x00\x00",
            b"\x03\x03" + bytes(32) + b"\x00\x00\x03ab",
            UP_TO_SUITES,
            UP_TO_SUITES + b"\x02\x00",
            UP_TO_COMPRESSION + b"\x00",
            UP_TO_COMPRESSION + b"\x00\x01",
            UP_TO_COMPRESSION + b"\x00\x00\x00",
            UP_TO_COMPRESSION + vector(2, b"\x00"),
            UP_TO_COMPRESSION + vector(2, b"\x00\x0a"),
            UP_TO_COMPRESSION + vector(2, b"\x00\x0a\x00"),
            UP_TO_COMPRESSION + vector(2, b"\x00\x0a\x00\x01"),
        ):
            data = record(message(body))
            self.assertEqual(self.rejected_at(data), len(data), msg=repr(body))

    def test_invalid_name_lists(self) -> None:
        """Lengths that do not match the server_name extension are rejected."""
        for content in (
            b"",
            b"\x00",
            b"\x00\x01",
            b"\x00\x00\x00",
            vector(2, b"\x00"),
            vector(2, b"\x00\x00"),
            vector(2, b"\x00\x00\x01"),
            vector(2, b"\x07\x00\x01"),
            vector(2, name_entry(b"a") + b"\x00"),
            vector(2, name_entry(b"a")) + b"\x00",
        ):
            self.rejected_at(record(hello_message(extension(0, content))))

    def test_repeated_names(self) -> None:
        """Repeated extensions and names are rejected."""
        server_name = name_extension(name_entry(b"a"))
        self.rejected_at(record(hello_message(server_name, server_name)))
        self.rejected_at(record(hello_message(name_extension(), extension(10, b""), server_name)))
        self.rejected_at(record(hello_message(extension(0, b""), server_name)))
        self.rejected_at(record(hello_message(name_extension(name_entry(b"a"), name_entry(b"b")))))
        self.rejected_at(
            record(hello_message(name_extension(name_entry(b""), name_entry(b"\xff"))))
        )

    def test_invalid_protocol_lists(self) -> None:
        """Empty lists and names, and lengths that do not match the ALPN extension, are rejected."""
        for content in (
            b"",
            b"\x00",
            # An empty list, and empty names.
            vector(2, b""),
            vector(2, b"\x00"),
            vector(2, b"\x02h2\x00"),
            vector(2, b"\x00\x02h2"),
            # Names that are longer than the list, and a list that is longer than the extension.
            vector(2, b"\x03h2"),
            vector(2, b"\x02h2\x09http/1.1"),
            b"\x00\x04\x02h2",
            # Trailing bytes.
            vector(2, b"\x02h2") + b"\x00",
            vector(2, b"\x02h2") + vector(2, b"\x02h2"),
        ):
            data = record(hello_message(extension(16, content)))
            self.assertEqual(self.rejected_at(data), len(data), msg=repr(content))

    def test_repeated_protocols(self) -> None:
        """A repeated ALPN extension is rejected, whatever it contains."""
        alpn = alpn_extension(b"h2")
        self.rejected_at(record(hello_message(alpn, alpn)))
        self.rejected_at(record(hello_message(alpn, extension(10, b""), extension(16, b""))))

    def test_errors(self) -> None:
        """The messages name the extension."""
        name, alpn = name_extension(name_entry(b"a")), alpn_extension(b"h2")
        for extensions, text in (
            ((name, name), "more than one server_name extension"),
            ((alpn, name, alpn), "more than one ALPN extension"),
            ((name, alpn_extension(b"")), "invalid ALPN extension"),
        ):
            error = self.assertRaises(ClientHelloError, parse, record(hello_message(*extensions)))
            self.assertEqual(str(error), text)


class ClientHelloPropertyTests(SynchronousTestCase):
    """Properties of any bytes."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.binary(max_size=200), st.sampled_from((b"", b"\x16\x03\x01", record(b"\x01\0\0")[:8]))
    )
    def test_any_bytes(self, data: bytes, start: bytes) -> None:
        """Any bytes give the same result in pieces of any size."""
        self.assertEqual(outcome(start + data, 1), outcome(start + data, 7))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=100))
    def test_any_body(self, rest: bytes) -> None:
        """A complete message always has a result or an error."""
        for body in (rest, UP_TO_COMPRESSION + rest, UP_TO_COMPRESSION + vector(2, rest)):
            data = record(message(body))
            self.assertNotEqual(outcome(data, len(data)), "None")
            self.assertEqual(outcome(data, 1), outcome(data, len(data)))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60))
    def test_any_name(self, name: bytes) -> None:
        """A returned name is the one sent, in lower case."""
        result = parse(record(hello_message(name_extension(name_entry(name)))))
        assert result is not None
        if result.server_name is not None:
            self.assertEqual(result.server_name, name.decode("ascii").lower().rstrip("."))
            self.assertNotIn("..", result.server_name)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(1, 300)), st.integers(1, 400))
    def test_any_fragmentation(self, sizes: list[int], step: int) -> None:
        """The result does not depend on the fragmentation."""
        for data in (PLAIN, OPENSSL[5:]):
            self.assertEqual(parse_in_pieces(records(data, sizes), step), EXPECTED)

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=9),
        st.booleans(),
        st.lists(st.integers(1, 300)),
        st.integers(1, 400),
    )
    def test_any_protocols(
        self, names: list[bytes], name_first: bool, sizes: list[int], step: int
    ) -> None:
        """All protocols are returned in order, however the hello is fragmented."""
        extensions = [name_extension(name_entry(b"a.b")), alpn_extension(*names)]
        data = hello_message(*extensions[:: 1 if name_first else -1])
        expected = ClientHello("a.b", tuple(names))
        self.assertEqual(parse_in_pieces(records(data, sizes), step), expected)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=40))
    def test_any_protocol_list(self, content: bytes) -> None:
        """Any ALPN extension has an error, or protocols that make up all of it."""
        try:
            result = parse(record(hello_message(extension(16, content))))
        except ClientHelloError:
            return
        assert result is not None
        self.assertTrue(result.alpn)
        self.assertEqual(alpn_extension(*result.alpn), extension(16, content))

    @settings(max_examples=500, deadline=None)
    @given(
        st.sampled_from((record(PLAIN), OPENSSL, records(PLAIN, (1, 2, 3, 50)))),
        st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4),
        st.integers(2, 400),
    )
    def test_mutations(self, data: bytes, changes: list[tuple[int, int]], step: int) -> None:
        """A hello with changed bytes gives the same result in pieces of any size."""
        changed = bytearray(data)
        for position, byte in changes:
            changed[position % len(data)] = byte
        self.assertEqual(outcome(bytes(changed), 1), outcome(bytes(changed), step))
        self.assertEqual(outcome(bytes(changed), 1), outcome(bytes(changed), len(data)))


class OpenSslTests(SynchronousTestCase):
    """Comparison with an OpenSSL server."""

    def test_server_names(self) -> None:
        """The name is the one that OpenSSL's servers receive."""
        for name in ("www.example.org", "a.b", "X.Example", None):
            received: list[str | None] = []
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.sni_callback = lambda _object, name, _context, received=received: (
                received.append(name)
            )
            data = openssl_hello(name)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = context.wrap_bio(incoming, outgoing, server_side=True)
            incoming.write(records(data[5:], [7] * 20))
            self.assertRaises(ssl.SSLError, server.do_handshake)
            result = parse(data)
            assert result is not None
            self.assertEqual([result.server_name], [name and name.lower() for name in received])
