"""The rules for request heads: targets, framing, and fields that depend on each other."""

from __future__ import annotations

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.request_head import RequestHeadParser
from tests.helpers.request_heads import (
    GET,
    HOST,
    RequestHeadTestCase,
    build_head,
    outcome,
    parse,
)


class TargetTests(RequestHeadTestCase):
    """The forms of a request target (RFC 9112, 3.2)."""

    def test_absolute_form_is_rewritten(self) -> None:
        """A target in absolute-form is forwarded in origin-form."""
        cases: list[tuple[bytes, bytes, bytes, bytes]] = [
            (b"GET", b"http://a/", b"a", b"/"),
            (b"GET", b"http://a", b"a", b"/"),
            (b"GET", b"HTTP://a/b?c", b"a", b"/b?c"),
            (b"GET", b"http://a?b=/c", b"a", b"/?b=/c"),
            (b"GET", b"http://a//b", b"a", b"//b"),
            (b"GET", b"http://a:80/", b"a", b"/"),
            (b"GET", b"http://a/", b"a:80", b"/"),
            (b"GET", b"http://a:/", b"a", b"/"),
            (b"GET", b"http://A/", b"a", b"/"),
            (b"GET", b"http://a:8080/b", b"a:8080", b"/b"),
            (b"GET", b"http://[::1]:80/b", b"[::1]", b"/b"),
            (b"OPTIONS", b"http://a", b"a", b"*"),
            (b"OPTIONS", b"http://a/", b"a", b"/"),
            (b"OPTIONS", b"http://a?b", b"a", b"/?b"),
            (b"OPTIONS", b"http://a/b", b"a", b"/b"),
        ]
        for method, target, host, expected in cases:
            for minor in (b"0", b"1"):
                parsed = parse(method + b" " + target + b" HTTP/1." + minor, b"Host: " + host)
                self.assertEqual(parsed.target, expected, msg=repr(target))
                self.assertEqual(
                    parsed.forward_bytes,
                    build_head(method + b" " + expected + b" HTTP/1.1", b"Host: " + host),
                    msg=repr(target),
                )

    def test_host_that_contradicts_the_target(self) -> None:
        """Host must agree with the host in the target."""
        for target, host in (
            (b"http://a/", b"b"),
            (b"http://a/", b""),
            (b"http://a/", b"a.b"),
            (b"http://a/", b"a:8080"),
            (b"http://a:8080/", b"a"),
            (b"http://a:8080/", b"a:8081"),
            (b"http://[::1]/", b"[::2]"),
        ):
            for minor in (b"0", b"1"):
                line = b"GET " + target + b" HTTP/1." + minor
                self.assert_rejected(400, line, b"Host: " + host)

    def test_invalid_targets(self) -> None:
        """Targets in no valid form, or of another scheme than http, are rejected without TLS."""
        for target in (
            b"a",
            b"a/b",
            b"a:80",
            b"?a",
            b"*/",
            b"**",
            b"http:/a/",
            b"http:a",
            b"http://",
            b"http:///",
            b"http://?a",
            b"http://user@a/",
            b"http://user:pass@a/",
            b"http://a,b/",
            b"http://a:x/",
            b"http://a\\b/",
            b"https://a/",
            b"ftp://a/",
            b"1http://a/",
        ):
            for method in (b"GET", b"OPTIONS"):
                self.assert_rejected(400, method + b" " + target + b" HTTP/1.1", HOST)

    def test_https_targets(self) -> None:
        """A target of the scheme https is accepted over TLS only, one of http always."""
        for target, host, path in (
            (b"https://a/b?c", b"a", b"/b?c"),
            (b"HTTPS://a:443/", b"A", b"/"),
            (b"https://a", b"a:443", b"/"),
            (b"https://a:8443/", b"a", None),
            (b"https://a:80/", b"a", None),
            (b"https://b/", b"a", None),
            (b"https://user@a/", b"a", None),
            (b"https:///", b"", None),
            (b"http://a:80/b", b"a", b"/b"),
            (b"http://a:443/b", b"a", None),
            (b"wss://a/", b"a", None),
        ):
            lines = (b"GET " + target + b" HTTP/1.1", b"Host: " + host)
            wire, parser = build_head(*lines), RequestHeadParser(secure=True)
            if path is None:
                error = self.assertRaises(RequestError, parser.parse, wire)
                self.assertEqual(error.status, 400, msg=repr(target))
            else:
                self.assertEqual(parser.parse(wire).target, path, msg=repr(target))
            if not target.startswith(b"http:"):
                self.assert_rejected(400, *lines)

    def test_absolute_form_requires_host(self) -> None:
        """A request with a target in absolute-form has to have Host too."""
        self.assert_rejected(400, b"GET http://a/ HTTP/1.1")

    def test_asterisk_form_requires_options(self) -> None:
        """The target * is accepted with OPTIONS only."""
        parsed = parse(b"OPTIONS * HTTP/1.1", HOST)
        self.assertEqual(
            (parsed.target, parsed.forward_bytes), (b"*", build_head(b"OPTIONS * HTTP/1.1", HOST))
        )
        for method in (b"GET", b"POST", b"options"):
            self.assert_rejected(400, method + b" * HTTP/1.1", HOST)


class FramingTests(RequestHeadTestCase):
    """Message framing: unambiguous, or rejected."""

    POST = b"POST / HTTP/1.1"

    def test_invalid_content_length(self) -> None:
        """Values other than one decimal number below 2^63 are rejected."""
        for value in (
            b"",
            b" ",
            b"+5",
            b"-5",
            b"-0",
            b"5_0",
            b"0x5",
            b"5, 5",
            b"5,5",
            b"5,",
            b"5 5",
            b"5.0",
            b"5e0",
            b"5;",
            b"five",
            b"\xb2",
            b"\xd9\xa3",
            b"5\x0b",
            b"9223372036854775808",
            b"18446744073709551621",
            b"0" * 19 + b"5",
            b"9" * 5000,
        ):
            self.assert_rejected(400, self.POST, HOST, b"Content-Length: " + value)
            self.assert_rejected(400, b"POST / HTTP/1.0", HOST, b"content-length:" + value)

    def test_repeated_content_length(self) -> None:
        """Repeated Content-Length fields are rejected, also with equal values."""
        five = b"Content-Length: 5"
        for second in (five, b"Content-Length: 6", b"content-length:5", b"Content-Length:"):
            self.assert_rejected(400, self.POST, HOST, five, second)
            self.assert_rejected(400, self.POST, HOST, second, b"X: 1", five)

    def test_content_length_with_transfer_encoding(self) -> None:
        """Content-Length and Transfer-Encoding together are rejected."""
        for length in (b"Content-Length: 5", b"Content-Length: 0"):
            for coding in (b"chunked", b"gzip, chunked", b"identity", b"", b"x\x0b"):
                line = b"Transfer-Encoding: " + coding
                self.assert_rejected(400, self.POST, HOST, length, line)
                self.assert_rejected(400, self.POST, HOST, line, length)

    def test_unsupported_transfer_codings(self) -> None:
        """Other codings before chunked are rejected with 501."""
        for lines in (
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding: gzip,deflate , Chunked"],
            [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: identity, chunked"],
            [b"transfer-encoding:x-thing,chunked"],
        ):
            self.assert_rejected(501, self.POST, HOST, *lines)

    def test_invalid_transfer_codings(self) -> None:
        """A Transfer-Encoding that is invalid, or does not end with chunked, gets 400."""
        for value in (
            b"",
            b",",
            b"gzip",
            b"identity",
            b"xchunked",
            b"chunkedx",
            b"chunked, gzip",
            b"chunked, chunked",
            b"gzip, chunked, chunked",
            b"chunked, identity",
            b'"chunked"',
            b"chunked;a=b",
            b"gz ip, chunked",
            b"[gzip], chunked",
            b"\x0bchunked",
            b"\x0cchunked",
            b"chunked\x00",
            b"chunked\xa0",
            b"chun\tked",
            b"c\xe2\x84\xaaunked",
        ):
            self.assert_rejected(400, self.POST, HOST, b"Transfer-Encoding: " + value)

    def test_repeated_transfer_encoding(self) -> None:
        """Repeated Transfer-Encoding fields are rejected."""
        line = b"Transfer-Encoding: chunked"
        for second in (line, b"transfer-encoding: chunked", b"Transfer-Encoding: identity"):
            self.assert_rejected(400, self.POST, HOST, line, second)

    def test_empty_list_member_in_transfer_encoding(self) -> None:
        """An empty list member is rejected."""
        for value in (b"chunked,", b",chunked"):
            result = outcome(
                RequestHeadParser(), build_head(self.POST, HOST, b"Transfer-Encoding: " + value)
            )
            self.assertIn(result, (400, 501), msg=repr(value))

    def test_transfer_encoding_in_http_1_0(self) -> None:
        """Transfer-Encoding in an HTTP/1.0 request is rejected (RFC 9112, 6.1)."""
        self.assert_rejected(400, b"POST / HTTP/1.0", HOST, b"Transfer-Encoding: chunked")

    def test_underscore_aliases_of_framing_fields(self) -> None:
        """Names like Content_Length are rejected."""
        for line in (
            b"Content_Length: 5",
            b"CONTENT_LENGTH: 5",
            b"Transfer_Encoding: chunked",
            b"transfer_encoding: chunked",
        ):
            self.assert_rejected(400, self.POST, HOST, line)
            self.assert_rejected(400, self.POST, HOST, b"Content-Length: 5", line)

    def test_connection_cannot_name_the_framing(self) -> None:
        """Connection cannot remove framing fields or Host."""
        options = b"Connection: Content-Length, Transfer-Encoding, Host"
        length = b"Content-Length: 5"
        parsed = parse(self.POST, options, HOST, length)
        self.assertEqual(
            (parsed.length, parsed.forward_bytes), (5, build_head(self.POST, HOST, length))
        )
        parsed = parse(self.POST, options, HOST, b"Transfer-Encoding: chunked")
        self.assertEqual(
            (parsed.length, parsed.forward_bytes), (CHUNKED, build_head(self.POST, HOST))
        )


class FieldRuleTests(RequestHeadTestCase):
    """Fields that are rejected by their number or value."""

    def test_missing_host(self) -> None:
        """An HTTP/1.1 request without Host is rejected."""
        self.assert_rejected(400, GET)
        self.assert_rejected(400, GET, b"X: 1")
        self.assert_rejected(400, GET, b"X-Forwarded-Host: a")
        self.assert_rejected(400, b"OPTIONS * HTTP/1.1")

    def test_repeated_host(self) -> None:
        """Repeated Host fields are rejected, also with equal values."""
        for second in (HOST, b"host: a", b"Host: b", b"Host:", b"HOST: a:80"):
            self.assert_rejected(400, GET, HOST, second)
            self.assert_rejected(400, GET, second, b"X: 1", HOST)
            self.assert_rejected(400, GET, HOST, b"Connection: keep-alive", second)
            self.assert_rejected(400, b"GET / HTTP/1.0", HOST, second)

    def test_invalid_hosts(self) -> None:
        """A Host that is not a host with an optional port is rejected."""
        for value in (
            b"a b",
            b"a,b",
            b"a, a",
            b"a/b",
            b"http://a",
            b"user@a",
            b"a#b",
            b"a?b",
            b"a;b",
            b"a\\b",
            b"a:b",
            b"a:123456",
            b"a:-1",
            b"::1",
            b"[::1",
            b"[]",
            b"a\tb",
            b"\xc3\xa4",
            b"a\x00",
        ):
            self.assert_rejected(400, GET, b"Host: " + value)
            self.assert_rejected(400, b"GET / HTTP/1.0", b"Host: " + value)

    def test_unsupported_expectations(self) -> None:
        """Expectations other than 100-continue are rejected with 417."""
        for value in (b"x", b"200-ok", b"100-continue, x", b"100-continue; a", b"100 continue"):
            self.assert_rejected(417, GET, HOST, b"Expect: " + value)
        self.assert_rejected(417, GET, HOST, b"Expect: 100-continue", b"Expect: x")

    def test_invalid_max_forwards(self) -> None:
        """Max-Forwards of OPTIONS and TRACE has to be one decimal number."""
        for value in (b"", b"x", b"-1", b"+1", b"1.0", b"1, 1", b"1_0", b"\xb2"):
            self.assert_rejected(400, b"OPTIONS / HTTP/1.1", HOST, b"Max-Forwards: " + value)
        self.assert_rejected(400, b"TRACE / HTTP/1.1", HOST, b"Max-Forwards: 1", b"Max-Forwards: 1")
