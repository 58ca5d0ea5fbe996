"""Server names, read from the beginning of TLS connections."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.client_hello import ClientHello, ClientHelloError, ClientHelloReader

LIMIT = 16 * 1024


def genuine(name: str | None, *, tls12: bool = False) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    else:
        raise AssertionError("a handshake with nobody")
    return outgoing.read()


def vector(size: int, content: bytes) -> bytes:
    """`content` behind its length."""
    return len(content).to_bytes(size, "big") + content


def record(fragment: bytes, version: int = 0x0301) -> bytes:
    return struct.pack("!BH", 22, version) + vector(2, fragment)


def message(body: bytes) -> bytes:
    return b"\x01" + vector(3, body)


def entry(name: bytes, kind: int = 0) -> bytes:
    """One of a list of server names."""
    return bytes((kind,)) + vector(2, name)


def names(*entries: bytes) -> bytes:
    """The extension that holds them."""
    return extension(0, vector(2, b"".join(entries)))


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, content)


UP_TO_SUITES = b"\x03\x03" + bytes(32) + vector(1, b"s" * 32) + vector(2, b"\x13\x01")
UP_TO_COMPRESSION = UP_TO_SUITES + vector(1, b"\0")


def hello(*extensions: bytes) -> bytes:
    """A message with these extensions."""
    return message(UP_TO_COMPRESSION + vector(2, b"".join(extensions)))


def records(message: bytes, sizes: Iterable[int]) -> bytes:
    """`message` in records of `sizes`, the last of which holds the rest."""
    result = b""
    for size in sizes:
        if size < len(message):
            result += record(message[:size])
            message = message[size:]
    return result + record(message)


def read(data: bytes) -> ClientHello | None:
    """What is read all at once."""
    return ClientHelloReader().feed(data)


def read_slowly(data: bytes, step: int = 1) -> ClientHello | None:
    """What is read in pieces, until it is known."""
    reader = ClientHelloReader()
    for start in range(0, len(data), step):
        result = reader.feed(data[start : start + step])
        if result is not None:
            return result
    return None


def outcome(data: bytes, step: int) -> str:
    """What is read, or refused, for comparison."""
    try:
        return repr(read_slowly(data, step))
    except ClientHelloError as error:
        return str(error)


NAME = ClientHello("www.example.org")
PLAIN = hello(extension(10, b"ab"), names(entry(b"www.example.org")), extension(0xFE0D, b"x" * 99))
GENUINE = genuine("www.example.org")


class ValidClientHelloTests(SynchronousTestCase):
    """Hellos that are well-formed."""

    def test_genuine(self) -> None:
        for tls12 in (False, True):
            self.assertEqual(read(genuine("www.example.org", tls12=tls12)), NAME)
            self.assertEqual(read(genuine(None, tls12=tls12)), ClientHello(None))

    def test_upper_case(self) -> None:
        self.assertEqual(read(genuine("WWW.Example.ORG")), NAME)
        self.assertEqual(read(record(hello(names(entry(b"WWW.Example.ORG"))))), NAME)

    def test_every_prefix(self) -> None:
        for data in (GENUINE, record(PLAIN), records(PLAIN, (1, 2, 3, 50))):
            for length in range(len(data)):
                self.assertIsNone(read(data[:length]), msg=str(length))
            self.assertEqual(read(data), NAME)

    def test_in_pieces(self) -> None:
        for data in (GENUINE, record(PLAIN), records(PLAIN, (1, 2, 3, 50))):
            for step in (1, 2, 3, 5, 7, 100):
                self.assertEqual(read_slowly(data, step), NAME)

    def test_in_several_records(self) -> None:
        for data in (PLAIN, GENUINE[5:]):
            for size in (1, 2, 3, 4, 5, 99, len(data) - 1):
                fragmented = records(data, [size] * len(data))
                self.assertEqual(read(fragmented), NAME)
                self.assertEqual(read_slowly(fragmented), NAME)

    def test_what_follows(self) -> None:
        for rest in (b"\x17\x03\x03", b"GET / HTTP/1.1\r\n\r\n", bytes(2 * LIMIT)):
            self.assertEqual(read(record(PLAIN) + rest), NAME)
        self.assertEqual(read(record(PLAIN + b"\x0b\0\0\0")), NAME)

    def test_everything_is_kept(self) -> None:
        reader = ClientHelloReader()
        data = records(PLAIN, (1, 2, 3)) + b"and more"
        for start in range(0, len(data), 100):
            reader.feed(data[start : start + 100])
        self.assertEqual(bytes(reader.received), data)

    def test_versions_of_records(self) -> None:
        for version in (0x0300, 0x0301, 0x0302, 0x0303, 0x0304):
            self.assertEqual(read(record(PLAIN, version)), NAME)

    def test_without_extensions(self) -> None:
        self.assertEqual(read(record(message(UP_TO_COMPRESSION))), ClientHello(None))
        self.assertEqual(read(record(hello())), ClientHello(None))

    def test_as_long_as_may_be(self) -> None:
        room = LIMIT - 5 - len(hello(names(entry(b"www.example.org")), extension(21, b"")))
        longest = record(hello(extension(21, bytes(room)), names(entry(b"www.example.org"))))
        self.assertEqual(len(longest), LIMIT)
        self.assertEqual(read(longest), NAME)
        self.assertEqual(read_slowly(longest), NAME)


class ServerNameTests(SynchronousTestCase):
    """Which of them count."""

    def name(self, *entries: bytes) -> str | None:
        """The name in such a list."""
        found = read(record(hello(names(*entries))))
        assert found is not None
        return found.server_name

    def test_usable(self) -> None:
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
            self.assertEqual(self.name(entry(name.encode())), name)
            self.assertEqual(self.name(entry(name.upper().encode() + b".")), name)

    def test_longest(self) -> None:
        longest = b".".join([b"a" * 63] * 3 + [b"b" * 61])
        self.assertEqual(len(longest), 253)
        self.assertEqual(self.name(entry(longest)), longest.decode())
        self.assertEqual(self.name(entry(longest + b".")), longest.decode())
        self.assertIsNone(self.name(entry(longest + b"b")))

    def test_of_no_use(self) -> None:
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
            self.assertIsNone(self.name(entry(name)), msg=repr(name))

    def test_lists(self) -> None:
        self.assertIsNone(self.name())
        self.assertIsNone(self.name(entry(b"www.example.org", kind=7)))
        self.assertEqual(self.name(entry(b"x", kind=7), entry(b"a.b")), "a.b")
        self.assertEqual(self.name(entry(b"a.b"), entry(b"\0\xff", kind=255)), "a.b")


class MalformedClientHelloTests(SynchronousTestCase):
    """What is no hello."""

    def refused(self, data: bytes) -> int:
        """After how many octets it is."""
        self.assertRaises(ClientHelloError, read, data)
        reader = ClientHelloReader()
        for length in range(1, len(data) + 1):
            try:
                reader.feed(data[length - 1 : length])
            except ClientHelloError:
                return length
        raise AssertionError("only refused all at once")

    def test_at_the_first_wrong_octet(self) -> None:
        for data, length in (
            (b"GET / HTTP/1.1\r\n", 1),
            (b"SSH-2.0-OpenSSH\r\n", 1),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", 1),
            # SSL 2.0.
            (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", 1),
            # An alert, application data, a change of the cipher.
            (b"\x15\x03\x01\x00\x02\x02\x28", 1),
            (b"\x17\x03\x03\x00\x02ab", 1),
            (b"\x14\x03\x03\x00\x01\x01", 1),
            # DTLS.
            (b"\x16\xfe\xfd\x00\x00", 2),
            (b"\x16\x02\x00\x00\x05", 2),
            # Records that are too long, and one that is empty.
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
            self.assertEqual(self.refused(data), length, msg=repr(data))

    def test_among_records(self) -> None:
        first = record(PLAIN[:10])
        for rest in (
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x17\x03\x01\x00\x05",
            b"\x16\x04\x01\x00\x05",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x00",
        ):
            length = self.refused(first + rest)
            self.assertLessEqual(length, len(first) + 5)
            self.assertGreater(length, len(first))

    def test_longest_hello_and_one_octet(self) -> None:
        fits = b"\x01" + (LIMIT - 9).to_bytes(3, "big")
        self.assertIsNone(read(record(fits)))
        self.assertEqual(self.refused(record(fits) + record(b"\x03")), 9 + 5)

    def test_records_without_end(self) -> None:
        data = b"\x01" + (8192).to_bytes(3, "big") + bytes(8192)
        length = self.refused(b"".join(record(data[i : i + 1]) for i in range(len(data))))
        self.assertLess(length, LIMIT)

    def test_lengths_that_do_not_fit(self) -> None:
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
            self.assertEqual(self.refused(data), len(data), msg=repr(body))

    def test_lists_of_names_that_do_not_fit(self) -> None:
        for content in (
            b"",
            b"\x00",
            b"\x00\x01",
            b"\x00\x00\x00",
            vector(2, b"\x00"),
            vector(2, b"\x00\x00"),
            vector(2, b"\x00\x00\x01"),
            vector(2, b"\x07\x00\x01"),
            vector(2, entry(b"a") + b"\x00"),
            vector(2, entry(b"a")) + b"\x00",
        ):
            self.refused(record(hello(extension(0, content))))

    def test_twice(self) -> None:
        one = names(entry(b"a"))
        self.refused(record(hello(one, one)))
        self.refused(record(hello(names(), extension(10, b""), one)))
        self.refused(record(hello(extension(0, b""), one)))
        self.refused(record(hello(names(entry(b"a"), entry(b"b")))))
        self.refused(record(hello(names(entry(b""), entry(b"\xff")))))


class ClientHelloPropertyTests(SynchronousTestCase):
    """Whatever is sent, it is a hello or it is not."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.binary(max_size=200), st.sampled_from((b"", b"\x16\x03\x01", record(b"\x01\0\0")[:8]))
    )
    def test_octets(self, data: bytes, start: bytes) -> None:
        self.assertEqual(outcome(start + data, 1), outcome(start + data, 7))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=100))
    def test_bodies(self, rest: bytes) -> None:
        for body in (rest, UP_TO_COMPRESSION + rest, UP_TO_COMPRESSION + vector(2, rest)):
            data = record(message(body))
            self.assertNotEqual(outcome(data, len(data)), "None")
            self.assertEqual(outcome(data, 1), outcome(data, len(data)))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60))
    def test_names(self, name: bytes) -> None:
        found = read(record(hello(names(entry(name)))))
        assert found is not None
        if found.server_name is not None:
            self.assertEqual(found.server_name, name.decode("ascii").lower().rstrip("."))
            self.assertNotIn("..", found.server_name)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(1, 300)), st.integers(1, 400))
    def test_records(self, sizes: list[int], step: int) -> None:
        for data in (PLAIN, GENUINE[5:]):
            self.assertEqual(read_slowly(records(data, sizes), step), NAME)

    @settings(max_examples=500, deadline=None)
    @given(
        st.sampled_from((record(PLAIN), GENUINE, records(PLAIN, (1, 2, 3, 50)))),
        st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=4),
        st.integers(2, 400),
    )
    def test_mutations(self, data: bytes, changes: list[tuple[int, int]], step: int) -> None:
        changed = bytearray(data)
        for place, octet in changes:
            changed[place % len(data)] = octet
        self.assertEqual(outcome(bytes(changed), 1), outcome(bytes(changed), step))
        self.assertEqual(outcome(bytes(changed), 1), outcome(bytes(changed), len(data)))


class OpenSslTests(SynchronousTestCase):
    """What a server is told of hellos is what is read from them."""

    def test_names_of_servers(self) -> None:
        for name in ("www.example.org", "a.b", "X.Example", None):
            told: list[str | None] = []
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.sni_callback = lambda _object, name, _context, told=told: told.append(name)
            data = genuine(name)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = context.wrap_bio(incoming, outgoing, server_side=True)
            incoming.write(records(data[5:], [7] * 20))
            self.assertRaises(ssl.SSLError, server.do_handshake)
            found = read(data)
            assert found is not None
            self.assertEqual([found.server_name], [name and name.lower() for name in told])
