"""Forwarded requests: the fields that are removed, and the fields that are added."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.grammar import list_items
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.proxy.forwarded_fields import (
    build_default_forwarded_fields,
    build_forwarded_fields,
    encode_client_cert,
)

GET = b"GET / HTTP/1.1"
HOST = b"Host: a"
PEER = b"192.0.2.9"
LOCAL = b"127.0.0.1:1100"

Lines = list[bytes]


def head(*lines: bytes) -> bytes:
    """A head of these lines."""
    return b"".join(line + b"\r\n" for line in lines)


def parse(*lines: bytes) -> RequestHead:
    """Parse one head with a new parser."""
    return RequestHeadParser().parse(head(*lines))


def forwarded_lines(*lines: bytes) -> Lines:
    """The field lines of a head that are forwarded."""
    data = parse(*lines).forward_bytes
    assert data.endswith(b"\r\n")
    return data.split(b"\r\n")[1:-1]


def added_lines(*lines: bytes, trusted: bool = False) -> Lines:
    """The field lines that are added to a head."""
    end = build_forwarded_fields(parse(*lines), PEER, b"http", LOCAL, trusted)
    assert end.endswith(b"\r\n\r\n")
    return end.split(b"\r\n")[:-2]


class HopByHopFieldTests(SynchronousTestCase):
    """Hop-by-hop fields are removed (RFC 9110, 7.6.1)."""

    def test_hop_by_hop_fields_are_removed(self) -> None:
        """Hop-by-hop fields, and forwarding fields in any spelling, are removed."""
        for line in (
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: Keep-Alive",
            b"Connection:",
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic x",
            b"Proxy-Authenticate: Basic",
            b"TE: trailers",
            b"te: gzip",
            b"Upgrade: websocket",
            b"HTTP2-Settings: x",
            b"X-Forwarded-For: 192.0.2.1",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: b",
            b"X_Forwarded_For: 192.0.2.1",
            b"X-Forwarded_Host: b",
            b"Client-Cert: :MQ==:",
            b"client-cert-chain: :MQ==:",
            b"Client_Cert: :MQ==:",
            b"CLIENT-CERT_CHAIN: :MQ==:",
            b"Proxy_Authorization: Basic x",
        ):
            parsed = forwarded_lines(GET, b"A: 1", line, HOST, line, b"B: 2")
            self.assertEqual(parsed, [b"A: 1", HOST, b"B: 2"], msg=repr(line))

    def test_fields_named_by_connection_are_removed(self) -> None:
        """Fields that Connection names are removed, and no others."""
        cases: list[tuple[Lines, Lines]] = [
            ([b"Connection: X-Hop", b"X-Hop: 1"], []),
            ([b"X-Hop: 1", b"connection: x-hop"], []),
            ([b"X-Hop: 1", b"x-HOP: 2", b"X-Hop: 1", b"Connection: X-Hop"], []),
            ([b"Connection: close, X-Hop ,,Y", b"X-Hop: 1", b"Y: 1", b"Z: 1"], [b"Z: 1"]),
            ([b"Connection: X-Hop", b"Connection: Y", b"X-Hop: 1", b"Y: 1"], []),
            ([b"Connection: X-Hop", b"X-Hopper: 1"], [b"X-Hopper: 1"]),
            ([b"Connection: Cookie", b"Cookie: a"], []),
            ([b"Connection: close", b"close: 1"], [b"close: 1"]),
        ]
        for lines, left in cases:
            self.assertEqual(forwarded_lines(GET, HOST, *lines), [HOST, *left], msg=repr(lines))

    def test_connection_cannot_remove_framing_fields(self) -> None:
        """Host, Content-Length and Transfer-Encoding stay, even if Connection names them."""
        lines = [HOST, b"Content-Length: 5"]
        for name in (b"host", b"Content-Length", b"transfer-encoding", b"Host, Content-Length"):
            self.assertEqual(
                forwarded_lines(GET, *lines, b"Connection: " + name), lines, msg=repr(name)
            )

    def test_connection_cannot_remove_added_fields(self) -> None:
        """Fields that the proxy adds are added, even if Connection names them."""
        lines = [b"Connection: X-Forwarded-For, Via, X-Forwarded-Host", b"X-Forwarded-For: a"]
        self.assertEqual(
            added_lines(GET, HOST, *lines),
            [
                b"X-Forwarded-For: a, " + PEER,
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: a",
                b"Via: 1.1 balancebeam",
            ],
        )


class ForwardedTests(SynchronousTestCase):
    """Fields about the client and the proxy."""

    def test_default_fields(self) -> None:
        """The fields that are added to a plain request."""
        self.assertEqual(
            build_default_forwarded_fields(PEER, b"http", b"a"),
            head(
                b"X-Forwarded-For: 192.0.2.9",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: a",
                b"Via: 1.1 balancebeam",
                b"",
            ),
        )

    def test_slow_path_agrees(self) -> None:
        """The slow path adds the same fields to a plain request."""
        for trusted in (False, True):
            self.assertEqual(
                build_forwarded_fields(parse(GET, HOST), PEER, b"http", LOCAL, trusted),
                build_default_forwarded_fields(PEER, b"http", b"a"),
            )

    def test_peer_is_appended(self) -> None:
        """The peer is appended to X-Forwarded-For."""
        cases: list[tuple[Lines, bytes]] = [
            ([], PEER),
            ([b"X-Forwarded-For: 192.0.2.1"], b"192.0.2.1, " + PEER),
            ([b"x-forwarded-for:a, b "], b"a, b, " + PEER),
            ([b"X-Forwarded-For: a", b"X: 1", b"x-forwarded-for: b"], b"a, b, " + PEER),
            ([b"X-Forwarded-For:"], PEER),
            ([b"X-Forwarded-For:", b"X-Forwarded-For: b"], b"b, " + PEER),
        ]
        for lines, chain in cases:
            for trusted in (False, True):
                self.assertEqual(
                    added_lines(GET, HOST, *lines, trusted=trusted)[0],
                    b"X-Forwarded-For: " + chain,
                    msg=repr(lines),
                )

    def test_only_trusted_peers_set_proto_and_host(self) -> None:
        """X-Forwarded-Proto and -Host are kept only if the peer is trusted."""
        lines = [b"X-Forwarded-Proto: https", b"X-Forwarded-Host: b"]
        self.assertEqual(
            added_lines(GET, HOST, *lines)[1:3],
            [b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a"],
        )
        self.assertEqual(
            added_lines(GET, HOST, *lines, trusted=True)[1:3],
            [b"X-Forwarded-Proto: https", b"X-Forwarded-Host: b"],
        )

    def test_trusted_peer_without_fields(self) -> None:
        """A trusted peer without X-Forwarded-Proto and -Host gets the request's own."""
        for lines in ([], [b"X-Forwarded-Proto:", b"X-Forwarded-Host:"]):
            self.assertEqual(
                added_lines(GET, HOST, *lines, trusted=True)[1:3],
                [b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a"],
            )

    def test_host_is_kept(self) -> None:
        """The client's Host field is forwarded unchanged."""
        for host in (b"a", b"A.Example:8080", b"", b"[::1]:80"):
            line = b"Host: " + host
            self.assertEqual(forwarded_lines(GET, line), [line])
            self.assertEqual(added_lines(GET, line)[2], b"X-Forwarded-Host: " + host)

    def test_http_1_0_without_host(self) -> None:
        """A missing Host field is added."""
        self.assertEqual(
            added_lines(b"GET / HTTP/1.0"),
            [
                b"Host: " + LOCAL,
                b"X-Forwarded-For: " + PEER,
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: " + LOCAL,
                b"Via: 1.0 balancebeam",
            ],
        )

    def test_via_has_the_received_version(self) -> None:
        """Via has the version of the received request (RFC 9110, 7.6.3)."""
        for version, via in ((b"1.0", b"1.0"), (b"1.1", b"1.1")):
            lines = added_lines(b"GET / HTTP/" + version, HOST)
            self.assertEqual(lines[-1], b"Via: " + via + b" balancebeam")

    def test_received_via_is_kept(self) -> None:
        """A received Via is forwarded."""
        self.assertEqual(forwarded_lines(GET, HOST, b"Via: 1.0 other"), [HOST, b"Via: 1.0 other"])

    def test_chunked_body(self) -> None:
        """Transfer-Encoding is added for a chunked body."""
        lines = added_lines(b"POST / HTTP/1.1", HOST, b"Transfer-Encoding: Chunked")
        self.assertEqual(lines[-1], b"Transfer-Encoding: chunked")
        self.assertEqual(CHUNKED, -1)


class ClientCertTests(SynchronousTestCase):
    """Client-Cert and Client-Cert-Chain (RFC 9440)."""

    OWN = b"Client-Cert: :MAMCAQU=:"
    RECEIVED = (b"Client-Cert: :MQ==:", b"client-cert-chain: :Mg==:, :Mw==:")

    def added(self, *lines: bytes, trusted: bool, own: bytes = OWN + b"\r\n") -> Lines:
        """The lines of both fields that are added to a request, and no other lines."""
        end = build_forwarded_fields(
            parse(GET, HOST, *lines), PEER, b"https", LOCAL, trusted, client_cert=own
        )
        return [line for line in end.split(b"\r\n") if line.lower().startswith(b"client")]

    def test_encoding(self) -> None:
        """The value is the certificate in DER as a byte sequence, on one line."""
        self.assertEqual(encode_client_cert(bytes([0x30, 3, 2, 1, 5])), self.OWN + b"\r\n")
        certificate = bytes(range(256)) * 16
        line = encode_client_cert(certificate)
        self.assertEqual((line[:14], line[-3:]), (b"Client-Cert: :", b":\r\n"))
        self.assertEqual(b64decode(line[14:-3], validate=True), certificate)

    def test_own_certificate(self) -> None:
        """The peer's certificate is added; received fields of untrusted peers are not."""
        for lines in ((), self.RECEIVED, self.RECEIVED[1:]):
            self.assertEqual(self.added(*lines, trusted=False), [self.OWN], msg=repr(lines))
        self.assertEqual(self.added(*self.RECEIVED, trusted=False, own=b""), [])

    def test_trusted_peer(self) -> None:
        """Fields of a trusted peer are forwarded unchanged, and never mixed with its own one."""
        for own in (b"", self.OWN + b"\r\n"):
            for lines in (self.RECEIVED, self.RECEIVED[:1], self.RECEIVED[1:]):
                added = self.added(*lines, trusted=True, own=own)
                self.assertEqual(added, list(lines), msg=repr(lines))
        self.assertEqual(self.added(trusted=True), [self.OWN])
        self.assertEqual(self.added(b"Client_Cert: :MQ==:", trusted=True, own=b""), [])

    def test_connection_cannot_remove_fields(self) -> None:
        """Connection options do not remove the fields, neither the own nor received ones."""
        option = b"Connection: Client-Cert, client-cert-chain"
        self.assertEqual(self.added(option, trusted=False), [self.OWN])
        self.assertEqual(self.added(option, *self.RECEIVED, trusted=True), list(self.RECEIVED))

    def test_paths_agree(self) -> None:
        """The cached end of a head has the same fields as the slow path."""
        own = self.OWN + b"\r\n"
        self.assertEqual(
            build_default_forwarded_fields(PEER, b"https", b"a", own),
            build_forwarded_fields(parse(GET, HOST), PEER, b"https", LOCAL, False, client_cert=own),
        )


class UpgradeTests(SynchronousTestCase):
    """The Upgrade field (RFC 9110, 7.8)."""

    def test_offers(self) -> None:
        """An upgrade that the client offers is offered to the server, but never h2c."""
        cases: list[tuple[Lines, bytes]] = [
            ([b"Upgrade: websocket", b"Connection: Upgrade"], b"websocket"),
            ([b"Connection: keep-alive, upgrade", b"upgrade: a/1, b"], b"a/1, b"),
            ([b"Upgrade: a", b"Upgrade: b", b"Connection: upgrade"], b"a, b"),
            ([b"Upgrade: h2c, websocket", b"Connection: Upgrade"], b"websocket"),
            ([b"Upgrade: a", b"Connection: upgrade", b"Content-Length: 0"], b"a"),
        ]
        for lines, offer in cases:
            parsed = parse(GET, HOST, *lines)
            self.assertEqual(parsed.rare_fields.upgrade, offer, msg=repr(lines))
            self.assertEqual(
                added_lines(GET, HOST, *lines)[-2:],
                [b"Upgrade: " + offer, b"Connection: upgrade"],
                msg=repr(lines),
            )

    def test_requests_without_an_upgrade(self) -> None:
        """Without both fields, with a body or in HTTP/1.0 no upgrade is offered."""
        upgrade, connection = b"Upgrade: websocket", b"Connection: Upgrade"
        cases: list[tuple[bytes, Lines]] = [
            (GET, [upgrade]),
            (GET, [connection]),
            (GET, [upgrade, b"Connection: close"]),
            (GET, [b"Upgrade:", connection]),
            (GET, [b"Upgrade: h2c", connection]),
            (GET, [b"Upgrade: H2C", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x"]),
            (GET, [upgrade, connection, b"Content-Length: 5"]),
            (GET, [upgrade, connection, b"Transfer-Encoding: chunked"]),
            (b"GET / HTTP/1.0", [upgrade, connection]),
        ]
        for line, lines in cases:
            self.assertEqual(parse(line, HOST, *lines).rare_fields.upgrade, b"", msg=repr(lines))
            names = [text.partition(b":")[0] for text in added_lines(line, HOST, *lines)]
            self.assertNotIn(b"Upgrade", names, msg=repr(lines))
            self.assertNotIn(b"Connection", names, msg=repr(lines))
            for text in forwarded_lines(line, HOST, *lines):
                self.assertIn(text, [HOST, b"Content-Length: 5"], msg=repr(lines))


class TrailersTests(SynchronousTestCase):
    """The TE field (RFC 9110, 10.1.4)."""

    def test_te_trailers_is_forwarded(self) -> None:
        """TE: trailers is forwarded, with its Connection option."""
        for value in (b"trailers", b"Trailers", b"gzip;q=0.5, trailers"):
            self.assertEqual(
                added_lines(GET, HOST, b"TE: " + value, b"Connection: TE")[-2:],
                [b"TE: trailers", b"Connection: TE"],
                msg=repr(value),
            )

    def test_other_codings_are_removed(self) -> None:
        """Transfer codings in TE are removed."""
        for value in (b"", b"gzip", b"xtrailers", b"deflate;q=1"):
            names = [line.partition(b":")[0] for line in added_lines(GET, HOST, b"TE: " + value)]
            self.assertNotIn(b"TE", names, msg=repr(value))

    def test_te_and_upgrade(self) -> None:
        """TE and Upgrade share one Connection field."""
        lines = added_lines(GET, HOST, b"TE: trailers", b"Upgrade: a", b"Connection: TE, upgrade")
        self.assertEqual(lines[-3:], [b"Upgrade: a", b"TE: trailers", b"Connection: upgrade, TE"])


class MaxForwardsTests(SynchronousTestCase):
    """The Max-Forwards field (RFC 9110, 7.6.2)."""

    def test_max_forwards_is_decremented(self) -> None:
        """Max-Forwards of OPTIONS and TRACE is decremented; 0 ends at the proxy."""
        cases = [
            (b"OPTIONS", b"0", b"0", True),
            (b"OPTIONS", b"1", b"0", False),
            (b"OPTIONS", b"10", b"9", False),
            (b"TRACE", b"0", b"0", True),
            (b"TRACE", b"007", b"6", False),
            (b"TRACE", b"999999999", b"999999998", False),
            (b"TRACE", b"9" * 30, b"999999999", False),
        ]
        for method, before, after, last in cases:
            line = method + b" / HTTP/1.1"
            lines = [b"max-forwards: " + before, HOST]
            parsed = parse(line, *lines)
            self.assertEqual(parsed.max_forwards_exhausted, last, msg=f"{method!r} {before!r}")
            self.assertEqual(
                parsed.forward_bytes, head(line, HOST, b"Max-Forwards: " + after), msg=f"{method!r}"
            )

    def test_other_methods(self) -> None:
        """Max-Forwards of other methods is forwarded unchanged."""
        for method in (b"GET", b"POST", b"options"):
            for value in (b"0", b"007", b"junk"):
                line = method + b" / HTTP/1.1"
                lines = [b"max-forwards: " + value, HOST]
                parsed = parse(line, *lines)
                self.assertFalse(parsed.max_forwards_exhausted)
                self.assertEqual(parsed.forward_bytes, head(line, *lines))

    def test_without_max_forwards(self) -> None:
        """Without Max-Forwards a request is forwarded."""
        parsed = parse(b"OPTIONS * HTTP/1.1", HOST)
        self.assertEqual(
            (parsed.max_forwards_exhausted, parsed.rare_fields.max_forwards), (False, ())
        )


class ExpectTests(SynchronousTestCase):
    """The Expect field (RFC 9110, 10.1.1)."""

    def test_expect_is_forwarded(self) -> None:
        """Expect: 100-continue is forwarded to the server."""
        for line in (b"Expect: 100-continue", b"expect:100-CONTINUE "):
            self.assertEqual(forwarded_lines(GET, line, HOST), [line, HOST])
            self.assertTrue(parse(GET, line, HOST).rare_fields.expects_continue)

    def test_expect_of_http_1_0_is_removed(self) -> None:
        """Expect of an HTTP/1.0 client is removed (RFC 9110, 10.1.1)."""
        for line in (b"Expect: 100-continue", b"eXPECT: 100-continue"):
            self.assertEqual(
                forwarded_lines(b"POST / HTTP/1.0", b"A: 1", line, HOST, b"Content-Length: 5"),
                [b"A: 1", HOST, b"Content-Length: 5"],
            )


# Fields that a proxy may change; all others have to arrive as they were sent.
PROXY_FIELDS = frozenset(
    b"""connection keep-alive proxy-connection proxy-authenticate proxy-authorization te upgrade
    transfer-encoding http2-settings x-forwarded-for x-forwarded-proto x-forwarded-host
    max-forwards client-cert client-cert-chain""".split()
)

METHODS = st.one_of(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE", b"QUERY"]),
    st.text("abGP!#$%&'*+-.^_`|~1", min_size=1, max_size=5).map(str.encode),
)
TARGETS = st.one_of(
    st.sampled_from([b"/", b"*", b"/a?b", b"http://a", b"http://a/b?c", b"HTTP://A:80?q"]),
    st.text([chr(code) for code in range(0x21, 0x7F)], max_size=10).map(
        lambda text: b"/" + text.encode()
    ),
)
SPECIAL = [
    b"Connection: close",
    b"Connection: keep-alive",
    b"connection: Upgrade, X-Hop",
    b"Connection: TE, aB",
    b"Connection: Cookie, Via",
    b"X-Hop: 1",
    b"Keep-Alive: 5",
    b"Proxy-Authorization: x",
    b"Upgrade: websocket, h2c",
    b"Upgrade: h2c",
    b"TE: trailers, gzip",
    b"Trailer: X-Sum",
    b"Expect: 100-continue",
    b"Expect: x",
    b"X-Forwarded-For: 192.0.2.1, 192.0.2.2",
    b"x-forwarded-proto: https",
    b"X-Forwarded-Host: b",
    b"X_Forwarded_For: 192.0.2.1",
    b"Client-Cert: :Zm9yZ2Vk:",
    b"client-cert-CHAIN: :Zm9yZ2Vk:",
    b"Client_Cert: :Zm9yZ2Vk:",
    b"Max-Forwards: 3",
    b"Cookie: a=1",
    b"Via: 1.0 other",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"content-length: 5, 5",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: gzip, chunked",
    b"Content_Length: 5",
    b"Host: a",
    b"Host: b",
    b"Bad : 1",
    b" folded",
]
NAMES = st.text("abAB!#$%&'*+-.^_`|~1", min_size=1, max_size=4).map(str.encode)
VALUES = st.binary(max_size=6)
FIELDS = st.lists(
    st.one_of(
        st.sampled_from(SPECIAL),
        st.sampled_from(SPECIAL),
        st.tuples(NAMES, VALUES).map(lambda pair: pair[0] + b":" + pair[1]),
    ),
    max_size=7,
)
BODIES = {5: b"hello", 0: b"", -1: b"5\r\nhello\r\n0\r\n\r\n"}
CACHING_PARSER = RequestHeadParser()


def is_proxy_field(name: bytes) -> bool:
    """Whether a field is one that a proxy may change, drop or add."""
    return name.replace(b"_", b"-") in PROXY_FIELDS


def end_to_end_fields(lines: Lines, minor: int) -> list[tuple[bytes, bytes]]:
    """The fields of a request that have to arrive at the server."""
    fields = [
        (name.lower(), value.strip(b" \t")) for name, _, value in (x.partition(b":") for x in lines)
    ]
    options = {o for name, value in fields if name == b"connection" for o in list_items(value)}
    options -= {b"host", b"content-length", b"keep-alive", b"close"}
    if minor == 0 and (b"expect", b"100-continue") in fields:
        options.add(b"expect")
    return [field for field in fields if not is_proxy_field(field[0]) and field[0] not in options]


class PropertyTests(SynchronousTestCase):
    """Any accepted request is exactly one, and the same, request to the server."""

    @settings(max_examples=600, deadline=None)
    @given(METHODS, TARGETS, st.sampled_from([b"0", b"1", b"1", b"2"]), FIELDS, st.booleans())
    def test_h11_parses_the_same_request(
        self, method: bytes, target: bytes, minor: bytes, fields: Lines, trusted: bool
    ) -> None:
        """h11 parses the forwarded bytes as exactly one request with the same fields and body."""
        lines = [HOST, *fields]
        try:
            parsed = CACHING_PARSER.parse(
                head(b"%b %b HTTP/1.%b" % (method, target, minor), *lines)
            )
        except RequestError:
            return
        connection = h11.Connection(h11.SERVER)
        data = parsed.forward_bytes + build_forwarded_fields(parsed, PEER, b"http", LOCAL, trusted)
        if not trusted:
            self.assertNotIn(b"Zm9yZ2Vk", data)
        connection.receive_data(data + BODIES[parsed.length])
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        self.assertEqual(
            (request.method, request.target, request.http_version),
            (method, parsed.target, b"1.1"),
        )
        if target.startswith(b"/"):
            self.assertEqual(request.target, target)
        arrived = [(name, value) for name, value in request.headers if not is_proxy_field(name)]
        self.assertEqual(arrived.pop(), (b"via", b"1.%d balancebeam" % parsed.minor))
        self.assertEqual(arrived, end_to_end_fields(lines, parsed.minor))
        counts = Counter(name for name, _ in request.headers)
        for name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"host"):
            self.assertEqual(counts[name], 1, msg=repr(name))
        self.assertTrue(dict(request.headers)[b"x-forwarded-for"].endswith(PEER))
        # The body, and nothing after it.
        content = b""
        while isinstance(event := connection.next_event(), h11.Data):
            content += event.data
        self.assertIsInstance(event, h11.EndOfMessage)
        self.assertEqual(content, b"hello" if parsed.length else b"")
        self.assertEqual(connection.trailing_data, (b"", False))

    @settings(max_examples=100, deadline=None)
    @given(FIELDS)
    def test_cached_field_lines_change_nothing(self, fields: Lines) -> None:
        """A parser with cached field lines parses as one without."""
        data = head(GET, HOST, *fields)
        outcomes = []
        for parser in (CACHING_PARSER, CACHING_PARSER, RequestHeadParser()):
            try:
                outcomes.append(repr(parser.parse(data)))
            except RequestError as error:
                outcomes.append(str(error.status))
        self.assertEqual(outcomes, outcomes[-1:] * 3)


class HostRegressionTests(SynchronousTestCase):
    """Requests without Host."""

    def test_absolute_form_of_http_1_0_without_host(self) -> None:
        """The host of a target in absolute form was not forwarded as Host (RFC 9112, 3.2)."""
        head = RequestHeadParser().parse(b"GET http://a/ HTTP/1.0\r\n")
        wire = head.forward_bytes + build_forwarded_fields(head, b"192.0.2.9", b"http", b"b", False)
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(wire)
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        self.assertEqual(dict(request.headers)[b"host"], b"a")
