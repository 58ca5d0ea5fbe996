"""Hostile and unusual responses."""

from __future__ import annotations

from collections.abc import Iterator

from tests.helpers.message_cases import TRUNCATED, ResponseCase, printable


def response(
    *lines: bytes, status: bytes = b"200 OK", body: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    """Return a response with these field lines."""
    return b"\r\n".join((b"HTTP/" + version + b" " + status, *lines, b"", b"")) + body


def response_heads() -> Iterator[ResponseCase]:
    """Status lines, fields and framing of responses."""
    for line in (
        *(
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 abc OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 -20 OK",
        ),
        *(
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1\t200 OK",
            b"HTTP/2.0 200 OK",
            b"HTTP/0.9 200 OK",
            b"HTTP/1.x 200 OK",
        ),
        *(
            b"http/1.1 200 OK",
            b"ICY 200 OK",
            b"200 OK",
            b"HTTP/1.10 200 OK",
            b"HTTP/1.1 200OK",
            b" HTTP/1.1 200 OK",
        ),
        *(
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 O\x7fK",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 600 OK",
            b"HTTP/1.1 099 OK",
        ),
        *(
            b"HTTP/1.1 0200 OK",
            b"HTTP/1.1 +200 OK",
            b"HTTP/1.1 2\xb20 OK",
            b"\x00HTTP/1.1 200 OK",
            b"GET / HTTP/1.1",
        ),
    ):
        sent = line + b"\r\nContent-Length: 0\r\n\r\n"
        yield ResponseCase(f"status line {printable(line)}", "9112 4", sent)
    for line in (
        b"X : 1",
        b" X: 1",
        b"X",
        b": 1",
        b"X: \x00",
        b"X: a\rb",
        b"X: a\nb",
        b"X Y: 1",
        b"X: \x7f",
        b"X\xff: 1",
    ):
        yield ResponseCase(
            f"field line {printable(line)}", "9112 5", response(b"A: 1", line, b"Content-Length: 0")
        )
    for value in (
        b"+5",
        b"-5",
        b"5_0",
        b"0x5",
        b"5,5",
        b"5, 6",
        b"",
        b"5 5",
        b"9223372036854775808",
        b"five",
        b"\xb2",
    ):
        yield ResponseCase(
            f"Content-Length: {printable(value)}",
            "9110 8.6",
            response(b"Content-Length: " + value, body=b"abcde"),
        )
    for pair in ((b"5", b"5"), (b"5", b"6"), (b"0", b"5")):
        yield ResponseCase(
            f"two lengths, {printable(pair[0])} and {printable(pair[1])}",
            "9112 6.3",
            response(*(b"Content-Length: " + v for v in pair), body=b"abcde"),
        )
    for lines in (
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    ):
        yield ResponseCase(
            f"{printable(lines[0])}, {printable(lines[1])}",
            "9112 6.1",
            response(*lines, body=b"0\r\n\r\n"),
        )
    for value in (
        b"gzip",
        b"gzip, chunked",
        b"chunked, chunked",
        b"chunked, gzip",
        b"identity",
        b"xchunked",
        b"",
        b"chunked,",
        b"chunked;a",
    ):
        yield ResponseCase(
            f"Transfer-Encoding: {printable(value)}",
            "9112 6.1",
            response(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n"),
        )
    yield ResponseCase(
        "Transfer-Encoding in HTTP/1.0",
        "9112 6.1",
        response(b"Transfer-Encoding: chunked", version=b"1.0", body=b"0\r\n\r\n"),
    )
    yield ResponseCase(
        "every line end a bare LF",
        "9112 2.2",
        response(b"Content-Length: 0").replace(b"\r\n", b"\n"),
    )
    yield ResponseCase("a head of 100,000 bytes", "9112 5.4", response(b"X: " + b"a" * 100000))
    yield ResponseCase("300 fields", "9112 5.4", response(*[b"X: 1"] * 300))
    yield ResponseCase("200 informational responses", "9110 15.2", response(status=b"102 P") * 200)
    yield ResponseCase(
        "101 without Upgrade in the request",
        "9110 7.8",
        response(b"Upgrade: x", b"Connection: upgrade", status=b"101 S"),
    )
    yield ResponseCase("close without a response", "9112 6.3", b"")
    yield ResponseCase("close within the head", "9112 6.3", b"HTTP/1.1 200 OK\r\nContent-Le")
    yield ResponseCase("not HTTP", "9112 4", b"SSH-2.0-OpenSSH_9.2\r\n")


def response_bodies() -> Iterator[ResponseCase]:
    """Bodies of responses, and responses without a body."""
    for body in (
        *(
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
        ),
        *(
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\r\n0\r\nX : 1\r\n\r\n",
            b"3\r\nabc\r\n",
            b"3\r\nab",
            b"",
            b"3;\n\r\nabc",
        ),
        *(
            b"3\r\nabc\n0\r\n\r\n",
            b"ffffffffffffffff\r\nabc",
            b"3_0\r\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\r\n0\r\n",
        ),
    ):
        yield ResponseCase(
            f"chunked body {printable(body)}",
            "9112 7.1",
            response(b"Transfer-Encoding: chunked", body=body),
            TRUNCATED,
        )
    yield ResponseCase(
        "a body that ends early", "9112 8", response(b"Content-Length: 9", body=b"abc"), TRUNCATED
    )
    yield ResponseCase(
        "bytes after the end",
        "9112 9.2",
        response(b"Content-Length: 3", body=b"abcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        200,
        stripped=b"evil",
    )
    yield ResponseCase(
        "bytes after the last chunk",
        "9112 9.2",
        response(b"Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\nevil"),
        200,
        stripped=b"evil",
    )
    yield ResponseCase(
        "a body after 204",
        "9112 6.3",
        response(status=b"204 N", body=b"evil"),
        204,
        stripped=b"evil",
    )
    yield ResponseCase(
        "a body after 304",
        "9112 6.3",
        response(b"Content-Length: 4", status=b"304 N", body=b"evil"),
        304,
        stripped=b"evil",
    )
    yield ResponseCase(
        "a body after HEAD",
        "9112 6.3",
        response(b"Content-Length: 4", body=b"evil"),
        200,
        request=b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        stripped=b"evil",
    )
    yield ResponseCase(
        "a chunked 204",
        "9112 6.1",
        response(b"Transfer-Encoding: chunked", status=b"204 N"),
        204,
        reused=True,
        stripped=b"ransfer",
    )
    yield ResponseCase(
        "a 204 with a length",
        "9110 8.6",
        response(b"Content-Length: 0", status=b"204 N"),
        204,
        reused=True,
        stripped=b"ength",
    )
    yield ResponseCase(
        "the length of a 304",
        "9110 8.6",
        response(b"Content-Length: 4", status=b"304 N"),
        304,
        reused=True,
        forwarded=b"Content-Length: 4\r\n",
    )
    yield ResponseCase(
        "Connection names fields",
        "9110 7.6.1",
        response(b"Connection: X-A", b"X-A: 1", b"Content-Length: 0"),
        200,
        reused=True,
        stripped=b"X-A",
    )
    yield ResponseCase(
        "no Date",
        "9110 6.6.1",
        response(b"Content-Length: 0"),
        200,
        reused=True,
        forwarded=b"\r\nDate: ",
    )
    yield ResponseCase(
        "forbidden trailers",
        "9110 6.5.1",
        response(
            b"Transfer-Encoding: chunked",
            body=b"1\r\na\r\n0\r\nContent-Length: 9\r\nSet-Cookie: x\r\nX: 1\r\n\r\n",
        ),
        200,
        reused=True,
        forwarded=b"\r\n0\r\nX: 1\r\n\r\n",
        stripped=b"Set-Cookie",
    )
    yield ResponseCase(
        "a status line without a reason phrase",
        "9112 4",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        200,
        reused=True,
        forwarded=b"HTTP/1.1 200 \r\n",
    )


RESPONSES: tuple[ResponseCase, ...] = (*response_heads(), *response_bodies())
