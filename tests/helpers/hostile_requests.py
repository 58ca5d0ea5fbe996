"""Hostile and unusual requests."""

from __future__ import annotations

from collections.abc import Iterator

from tests.helpers.message_cases import RequestCase, printable


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """Return a request with Host and these field lines."""
    return b"\r\n".join((line, b"Host: a", *lines, b"", b""))


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a POST request with Host and these field lines."""
    return get(*lines, line=b"POST / HTTP/1.1") + body


def chunked(body: bytes) -> bytes:
    """Return a POST request with an encoded chunked body."""
    return post(b"Transfer-Encoding: chunked", body=body)


def framing() -> Iterator[RequestCase]:
    """Content-Length and Transfer-Encoding of requests."""
    for value in (
        *(b"+5", b"-5", b"5_0", b"0x5", b"5 5", b"5,5", b"5, 5", b"5, 6", b"", b" ", b"5;", b"5.0"),
        *(b"1e1", b"\xd9\xa5", b"\xb2", b"five", b"9223372036854775808", b"9" * 30, b"0 0"),
    ):
        yield RequestCase(
            f"Content-Length: {printable(value)}", "9110 8.6", post(b"Content-Length: " + value)
        )
    both = (b"Content-Length: 5", b"Transfer-Encoding: chunked")
    for lines in (both, both[::-1]):
        body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        yield RequestCase(
            f"{printable(lines[0])} before {printable(lines[1])}",
            "9112 6.1",
            post(*lines, body=body),
        )
    for pair in ((b"5", b"5"), (b"5", b"6"), (b"6", b"5"), (b"0", b"5")):
        lengths = [b"Content-Length: " + value for value in pair]
        yield RequestCase(
            f"two lengths, {printable(pair[0])} and {printable(pair[1])}",
            "9112 6.3",
            post(*lengths, body=b"abcde"),
        )
    for value, status in (
        *((b"identity", 400), (b"xchunked", 400), (b"chunkedx", 400), (b"chunked, identity", 400)),
        *((b"chunked, chunked", 400), (b"chunked,", 400), (b",chunked", 400), (b"", 400)),
        *((b"chunked;q=1", 400), (b'"chunked"', 400), (b"chu nked", 400), (b"gzip", 400)),
        *((b"\x0bchunked", 400), (b"chunked\x00", 400), (b"chunked\x0c", 400), (b"[chunked]", 400)),
        *((b"gzip, chunked", 501), (b"foo, chunked", 501), (b"identity, chunked", 501)),
        *(
            (b"chunked, gzip", 400),
            (b"\xa0chunked", 400),
            (b"chunked\r", 400),
            (b"c\xc2hunked", 400),
        ),
    ):
        yield RequestCase(
            f"Transfer-Encoding: {printable(value)}",
            "9112 6.1",
            post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n"),
            status,
        )
    for group in (
        (b"Transfer-Encoding : chunked",),
        (b" Transfer-Encoding: chunked",),
        (b"X: 1", b"\tTransfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        (b"Transfer-Encoding:", b" chunked"),
        (b"Transfer-Encoding\x00: chunked",),
        (b"Transfer_Encoding: chunked",),
        (b"Content_Length: 5",),
        (b"Content-Length : 5",),
        (b"Content-Length: 5", b"Content_Length: 6"),
        (b"X: 1\nTransfer-Encoding: chunked",),
        (b"X: 1\rTransfer-Encoding: chunked",),
    ):
        yield RequestCase(
            " then ".join(printable(line) for line in group),
            "9112 5, 6.1",
            post(*group, body=b"0\r\n\r\n"),
        )
    yield RequestCase(
        "Transfer-Encoding in HTTP/1.0",
        "9112 6.1",
        get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n",
    )
    yield RequestCase(
        "Transfer-Encoding: CHUNKED",
        "9112 7",
        post(b"Transfer-Encoding: CHUNKED", body=b"1\r\na\r\n0\r\n\r\n"),
        200,
        forwarded=b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    )
    yield RequestCase(
        "Connection: Content-Length",
        "9110 7.6.1",
        post(b"Connection: Content-Length", b"Content-Length: 3", body=b"abc"),
        200,
        forwarded=b"Content-Length: 3\r\n",
    )
    yield RequestCase(
        "Connection: Host, close",
        "9110 7.6.1",
        get(b"Connection: Host, close"),
        200,
        b"Host: a\r\n",
    )


def fields() -> Iterator[RequestCase]:
    """Field lines of requests."""
    for number in (*range(0x20), 0x7F):
        if number != 0x09:
            character = bytes([number])
            yield RequestCase(
                f"{printable(character)} in a value", "9110 5.5", get(b"X: a" + character + b"b")
            )
    for number in (*range(0x21), *b'"(),/:;<=>?@[\\]{}', 0x7F, 0x80, 0xE9, 0xFF):
        if number != 0x3A:
            character = bytes([number])
            yield RequestCase(
                f"{printable(character)} in a name", "9110 5.1", get(b"X" + character + b"Y: 1")
            )
    for line in (b": 1", b"X", b"X 1", b" : 1", b"X : 1", b"X\t: 1", b"=X: 1", b"\xffX: 1"):
        yield RequestCase(f"field line {printable(line)}", "9112 5", get(line))
    for line in (b" folded", b"\tfolded", b" X: 1", b" "):
        yield RequestCase(
            f"field line continued by {printable(line)}", "9112 5.2", get(b"A: 1", line)
        )
    yield RequestCase(
        "space before the first field line",
        "9112 2.2",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    )
    yield RequestCase("256 fields", "6585 5", get(*[b"X: 1"] * 256), 431)
    yield RequestCase("a field line of 40,000 bytes", "6585 5", get(b"X: " + b"a" * 40000), 431)
    yield RequestCase("a head without an end", "6585 5", get(b"X: " + b"a" * 40000)[:-4], 431)
    yield RequestCase(
        "a value with HTAB, spaces and bytes above 0x7f",
        "9110 5.5",
        get(b"X: \t \x80\xff~"),
        200,
        b"X: \t \x80\xff~\r\n",
    )
    yield RequestCase("empty value", "9110 5.5", get(b"X:"), 200, b"X:\r\n")
    yield RequestCase(
        "fields that Connection names",
        "9110 7.6.1",
        get(b"Connection: X-A,,x-b ,", b"X-A: 1", b"X-B: 2"),
        200,
        forwarded=b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For",
    )
    for line in (b"X_Forwarded_For: 1.1.1.1", b"X-Forwarded_Proto: https", b"Proxy_Connection: x"):
        yield RequestCase(f"{printable(line)}", "9110 5.1", get(line), 200, stripped=line)
    for line in (
        *(b"Keep-Alive: timeout=5", b"Proxy-Connection: close", b"TE: gzip", b"Upgrade: x"),
        *(b"Proxy-Authorization: Basic eA==", b"Proxy-Authenticate: Basic", b"HTTP2-Settings: AAA"),
    ):
        yield RequestCase(f"{printable(line)}", "9110 7.6.1", get(line), 200, stripped=line)


def request_lines() -> Iterator[RequestCase]:
    """Request lines and targets."""

    def line(text: bytes) -> bytes:
        """Return a request with this first line."""
        return text + b"\r\nHost: a\r\n\r\n"

    for text, status in (
        *((b"GET /", 400), (b"GET", 400), (b"GET  / HTTP/1.1", 400), (b"GET /  HTTP/1.1", 400)),
        *((b"GET\t/ HTTP/1.1", 400), (b"GET /\tHTTP/1.1", 400), (b" GET / HTTP/1.1", 400)),
        *((b"GET / HTTP/1.1 ", 400), (b"GET / HTTP/1.1\t", 400), (b"GET / HTTP/1.1 x", 400)),
        *((b"GET / HTTP/1.10", 400), (b"GET / HTTP/01.1", 400), (b"GET / HTTP/1.", 400)),
        *((b"GET / HTTP/1", 400), (b"GET / HTTP/.1", 400), (b"GET / HTTP/1.x", 400)),
        *((b"GET / HTTP/-1.1", 400), (b"GET / http/1.1", 400), (b"GET / Http/1.1", 400)),
        *((b"GET / HTTP /1.1", 400), (b"GET / HTTP/1,1", 400), (b"GET / HTTP/1.1\x00", 400)),
        *((b"GET / XTTP/1.1", 400), (b"GET / ", 400), (b"/ HTTP/1.1", 400), (b"GET HTTP/1.1", 400)),
        *((b"GET / HTTP/0.9", 505), (b"GET / HTTP/2.0", 505), (b"GET / HTTP/3.0", 505)),
        *((b"GET / HTTP/9.9", 505), (b"PRI * HTTP/2.0", 505), (b"GET / HTTP/1.1\r", 400)),
        *((b"G@T / HTTP/1.1", 400), (b"GE\x00T / HTTP/1.1", 400), (b"G(T / HTTP/1.1", 400)),
        *((b"\xc7ET / HTTP/1.1", 400), (b'"GET" / HTTP/1.1', 400), (b"GET: / HTTP/1.1", 400)),
        *((b"CONNECT a:80 HTTP/1.1", 501), (b"CONNECT / HTTP/1.1", 501)),
        *((b"CONNECT http://a/ HTTP/1.1", 501), (b"CONNECT * HTTP/1.1", 501)),
    ):
        yield RequestCase(f"request line {printable(text)}", "9112 3", line(text), status)
    for number in (*range(0x21), 0x22, 0x23, 0x3C, 0x3E, 0x5C, 0x7F, 0x80, 0xE9, 0xFF):
        character = bytes([number])
        text = b"GET /a" + character + b"b HTTP/1.1"
        yield RequestCase(f"{printable(character)} in a target", "9112 3.2, 3986 2", line(text))
    for target in (
        *(b"a", b"a:80", b"?x", b"http:/a", b"http://", b"http:///x", b"http:a", b"://a/"),
        *(b"ftp://a/", b"https://a/", b"http://x@a/", b"http://a:x/", b"http://a b/", b"*"),
        *(b"http://a:99999/", b"http://[::1/", b"http://[x]/", b"*/", b"file:///etc/passwd"),
        *(b"http://b/", b"http://a:81/", b"http://a.b/", b"http://:80/"),
    ):
        text = b"GET " + target + b" HTTP/1.1"
        yield RequestCase(f"GET {printable(target)}, Host: a", "9112 3.2", line(text))
    yield RequestCase(
        "a request line of 9,000 bytes",
        "9110 15.5.15",
        line(b"GET /" + b"a" * 9000 + b" HTTP/1.1"),
        414,
    )
    yield RequestCase("a method of 9,000 bytes", "9112 3", line(b"A" * 9000 + b" / HTTP/1.1"), 414)
    yield RequestCase("a request line without an end", "9112 3", b"GET /" + b"a" * 9000, 414)
    for text, forwarded in (
        (b"GET http://a/x?y HTTP/1.1", b"GET /x?y HTTP/1.1\r\n"),
        (b"GET HTTP://A:80 HTTP/1.1", b"GET / HTTP/1.1\r\n"),
        (b"GET http://a?x HTTP/1.1", b"GET /?x HTTP/1.1\r\n"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1\r\n"),
        (b"OPTIONS http://a HTTP/1.1", b"OPTIONS * HTTP/1.1\r\n"),
        (b"GET //a//b HTTP/1.1", b"GET //a//b HTTP/1.1\r\n"),
        (
            b"GET /%2e%2E/../a;b?c=%zz&d={|}\\^` HTTP/1.1",
            b"GET /%2e%2E/../a;b?c=%zz&d={|}\\^` HTTP/1.1\r\n",
        ),
        (b"M!#$%&'*+-.^_`|~0 / HTTP/1.1", b"M!#$%&'*+-.^_`|~0 / HTTP/1.1\r\n"),
        (b"GET / HTTP/1.2", b"GET / HTTP/1.1\r\n"),
        (b"GET / HTTP/1.0", b"GET / HTTP/1.1\r\n"),
    ):
        yield RequestCase(f"request line {printable(text)}", "9112 3", line(text), 200, forwarded)


def line_endings() -> Iterator[RequestCase]:
    """Bare LF, bare CR and empty lines."""
    valid = b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n"
    yield RequestCase("every line end a bare LF", "9112 2.2", valid.replace(b"\r\n", b"\n"))
    yield RequestCase(
        "every line end a bare CR", "9112 2.2", valid.replace(b"\r\n", b"\r") + b"\r\n\r\n"
    )
    for index in range(4):
        parts = valid.split(b"\r\n")
        for name, end in (
            ("LF", b"\n"),
            ("CR", b"\r"),
            ("LF CR", b"\n\r"),
            ("CR CR LF", b"\r\r\n"),
        ):
            text = b"\r\n".join(parts[: index + 1]) + end + b"\r\n".join(parts[index + 1 :])
            yield RequestCase(f"{name} for line end {index + 1}", "9112 2.2", text + b"\r\n\r\n")
    yield RequestCase("one empty line first", "9112 2.2", b"\r\n" + valid, 200, b"GET / HTTP/1.1")
    yield RequestCase("two empty lines first", "9112 2.2", b"\r\n\r\n" + valid)
    yield RequestCase("a bare LF first", "9112 2.2", b"\n" + valid)
    yield RequestCase("TLS", "9112 3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    yield RequestCase("the preface of HTTP/2", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)


def hosts() -> Iterator[RequestCase]:
    """The Host field."""
    for lines in (
        (),
        (b"Host: a", b"Host: a"),
        (b"Host: a", b"Host: b"),
        (b"Host: a", b"host: a"),
    ):
        text = b"\r\n".join((b"GET / HTTP/1.1", *lines, b"", b""))
        yield RequestCase(
            f"{len(lines)} Host fields {printable(b', '.join(lines))}", "9112 3.2", text
        )
    for value in (
        *(
            b"a b",
            b"a,b",
            b"a, a",
            b"a/b",
            b"x@a",
            b"a:b",
            b"a:80:80",
            b"[::1",
            b"::1",
            b"http://a",
        ),
        *(
            b"a?b",
            b"a#b",
            b"a\\b",
            b"a;b",
            b"[x]",
            b"[::1]x",
            b"a:-1",
            b"a:+80",
            b"a:99999",
            b":80",
        ),
        *(b"\xc3\xa9", b"a\x00", b"a\x0b", b"a\tb", b'"a"', b"<a>", b"a'b", b"[]", b"[:::]"),
    ):
        text = b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"
        yield RequestCase(f"Host: {printable(value)}", "9110 7.2", text)
    for value in (b"a.example:8080", b"[::1]:80", b"127.0.0.1", b"a_b.c-d", b"xn--bcher-kva.de"):
        text = b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"
        yield RequestCase(f"Host: {printable(value)}", "9110 7.2", text, 200, b"Host: " + value)
    yield RequestCase(
        "no Host in HTTP/1.0", "9112 3.2", b"GET / HTTP/1.0\r\n\r\n", 200, b"\r\nHost: "
    )


def chunked_bodies() -> Iterator[RequestCase]:
    """Chunk sizes, extensions, line ends and trailers."""
    for size in (
        *(b"+3", b"-3", b"0x3", b"3 ", b"3\t", b" 3", b"3_0", b"", b"g", b"3h", b"3\x00", b"\x003"),
        *(b"3\r", b"3\n", b"3.", b"3,", b"three", b"\xef\xbc\x93", b"00000000000000003", b"3 3"),
        *(
            b"8000000000000000",
            b"ffffffffffffffff",
            b"fffffffffffffffff",
            b"3;\n",
            b"3;a\nb",
            b"3;a\r",
        ),
        *(
            b'3;a="\n"',
            b'3;a="\r"',
            b'3;a="',
            b"3;;",
            b"3;=x",
            b"3;a=",
            b"3;a b",
            b"3;a=\x00",
            b"3;\x7f",
        ),
        *(b"3 ;a", b"3; a", b"3;a =b", b";a", b"3;a=b c"),
    ):
        yield RequestCase(
            f"chunk size {printable(size)}", "9112 7.1", chunked(size + b"\r\nabc\r\n0\r\n\r\n")
        )
    for body in (
        *(
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
        ),
        *(
            b"3\r\nabc\r0\r\n\r\n",
            b"3\r\nabc\r\r\n0\r\n\r\n",
            b"3\r\nabc\r\n0\n\r\n",
            b"3\r\nabc\n\r0\r\n\r\n",
        ),
        *(
            b"3\r\nabc\r\n0\r\nX : 1\r\n\r\n",
            b"3\r\nabc\r\n0\r\n X: 1\r\n\r\n",
            b"3\r\nabc\r\n0\r\n: 1\r\n\r\n",
        ),
        *(
            b"3\r\nabc\r\n0\r\nX\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX: 1\n\r\n",
        ),
        *(b"3\r\nabc\r\n0\r\nA: 1\r\n B\r\n\r\n", b"3\r\nabc\r\n0\r\nX: a\rb\r\n\r\n"),
        *(
            b"3\r\nabc\r\n0\r\n" + b"X: 1\r\n" * 100 + b"\r\n",
            b"3\r\nabc\r\n0\r\nX: " + b"a" * 20000,
        ),
        *(b"1;" + b"a" * 5000 + b"\r\na\r\n", b"1;a\r\na\r\n" * 9000, b"1;" + b"a" * 5000),
    ):
        yield RequestCase(f"chunked body {printable(body)}", "9112 7.1", chunked(body))
    for body, forwarded in (
        (b"003\r\nabc\r\n00\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"),
        (b'3;a=b;c="d;\\"e\t";f\r\nabc\r\n0;x\r\n\r\n', b"3\r\nabc\r\n0\r\n\r\n"),
        (b"3\r\n\r\n\r\r\n0\r\n\r\n", b"3\r\n\r\n\r\r\n0\r\n\r\n"),
        (b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ):
        yield RequestCase(
            f"chunked body {printable(body)}", "9112 7.1", chunked(body), 200, forwarded
        )
    for name in (
        *(
            b"Content-Length",
            b"Transfer-Encoding",
            b"Host",
            b"Connection",
            b"Trailer",
            b"TE",
            b"Via",
        ),
        *(b"Upgrade", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"Forwarded"),
        *(b"Authorization", b"Cookie", b"Cache-Control", b"Content-Type", b"Content-Encoding"),
        *(b"Content-Range", b"Expect", b"Max-Forwards", b"content_length", b"X_Forwarded_For"),
        *(b"Keep-Alive", b"Proxy-Authorization", b"Range", b"X-Real-IP", b"Proxy-Connection"),
    ):
        body = b"1\r\na\r\n0\r\n" + name + b": 0\r\nX: 1\r\n\r\n"
        yield RequestCase(
            f"trailer {printable(name)}",
            "9110 6.5.1",
            chunked(body),
            200,
            forwarded=b"\r\n0\r\nX: 1\r\n\r\n",
            stripped=name + b": 0",
        )


def expectations() -> Iterator[RequestCase]:
    """Expect, Max-Forwards and Upgrade."""
    for value in (b"tea", b"100-continue, tea", b"100-continue;x", b"200-ok"):
        yield RequestCase(
            f"Expect: {printable(value)}", "9110 10.1.1", get(b"Expect: " + value), 417
        )
    yield RequestCase(
        "Expect: 100-Continue",
        "9110 10.1.1",
        post(b"Expect: 100-Continue", b"Content-Length: 1", body=b"a"),
        200,
        b"Expect: 100-Continue",
    )
    yield RequestCase(
        "Expect in HTTP/1.0",
        "9110 10.1.1",
        get(b"Expect: 100-continue", b"Content-Length: 1", line=b"POST / HTTP/1.0") + b"a",
        200,
        stripped=b"Expect",
    )
    for value in (b"-1", b"x", b"1, 1", b"", b"+1"):
        yield RequestCase(
            f"Max-Forwards: {printable(value)}",
            "9110 7.6.2",
            get(b"Max-Forwards: " + value, line=b"OPTIONS / HTTP/1.1"),
        )
    yield RequestCase(
        "Upgrade: h2c",
        "9113 3.1",
        get(b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA"),
        200,
        stripped=b"h2c",
    )
    yield RequestCase(
        "Upgrade: h2c, x",
        "9113 3.1",
        get(b"Connection: upgrade", b"Upgrade: h2c, x"),
        200,
        b"Upgrade: x\r\n",
        stripped=b"h2c",
    )
    yield RequestCase(
        "Upgrade in HTTP/1.0",
        "9110 7.8",
        get(b"Connection: upgrade", b"Upgrade: x", line=b"GET / HTTP/1.0"),
        200,
        stripped=b"Upgrade",
    )
    yield RequestCase(
        "Upgrade beside a body",
        "9110 7.8",
        post(b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 1", body=b"a"),
        200,
        stripped=b"Upgrade",
    )
    for value in (b"junk", b"-1", b"007"):
        yield RequestCase(
            f"Max-Forwards: {printable(value)} in a GET",
            "9110 7.6.2",
            get(b"Max-Forwards: " + value),
            200,
            b"Max-Forwards: " + value + b"\r\n",
        )
    yield RequestCase(
        "Max-Forwards: 99999999999999999999 in OPTIONS",
        "9110 7.6.2",
        get(b"Max-Forwards: 99999999999999999999", line=b"OPTIONS / HTTP/1.1"),
        200,
        b"Max-Forwards: 999999999\r\n",
    )
    for value in (b"WebSocket", b"TLS/1.2, x"):
        yield RequestCase(
            f"Upgrade: {printable(value)}",
            "9110 7.8",
            get(b"Connection: upgrade", b"Upgrade: " + value),
            200,
            b"Upgrade: " + value + b"\r\n",
        )
    for lines in (
        (b"Expect: 100-continue", b"Expect: 100-continue"),
        (b"Expect: , 100-continue,",),
    ):
        yield RequestCase(
            " and ".join(map(printable, lines)),
            "9110 5.6.1.2",
            post(*lines, b"Content-Length: 1", body=b"a"),
            200,
        )


def incomplete_heads() -> Iterator[RequestCase]:
    """Incomplete heads that cannot become valid any more."""
    for data, status in (
        *((b"GET /x\r\n", 400), (b"FOO\r\n", 400), (b"EHLO x\r\n", 400), (b"SSH-2.0-x\r\n", 400)),
        *(
            (b"HTTP/1.1 200 OK\r\n", 400),
            (b"GET /x HTTP/9.9\r\n", 505),
            (b"GET  / HTTP/1.1\r\n", 400),
        ),
        *((b"GET / HTTP/1.1\r\nHost : a\r\n", 400), (b"GET / HTTP/1.1\r\n Host: a\r\n", 400)),
        *((b"\x80\x2e\x01\x00\x02", 400), (b"\x00", 400), (b"{", 400)),
        *((b"GET / HTTP/1.1\r\nHost: a\nX", 400), (b"GET / HTTP/1.1\r\nX: \x00\r\nH", 400)),
        *((b"GET / HTTP/1.1\n", 400), (b"\r\nGET /x\r\n", 400)),
    ):
        yield RequestCase(f"incomplete head {printable(data)}", "9112 2.2, 3", data, status)
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na"
    yield RequestCase("bytes after the body", "9112 6.2", body + b"x\r\n", 200)


REQUESTS: tuple[RequestCase, ...] = (
    *framing(),
    *fields(),
    *request_lines(),
    *line_endings(),
    *hosts(),
    *chunked_bodies(),
    *expectations(),
    *incomplete_heads(),
)
