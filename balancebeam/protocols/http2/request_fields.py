"""
Fields of requests (RFC 9113, 8.2 and 8.3): interpreted as HTTP/1.1, or rejected.

The fields of a request become the text that HTTP/1.1 would have carried, and `RequestHeadParser`
parses that. So a request passes the same checks in both versions, and servers receive the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Union

from attrs import frozen

from balancebeam.core.errors import RequestError
from balancebeam.protocols.grpc import is_grpc
from balancebeam.protocols.http1.body import BodyError, filter_trailers
from balancebeam.protocols.http1.grammar import TOKEN
from balancebeam.protocols.http1.request_head import MAX_REQUEST_LINE, RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.request_target import is_same_authority

WEBSOCKET = b"websocket"

_SLASH = ord("/")

# What `REQUEST_LINE` allows in all parts of a path; a query may have a backslash as well.
_PATH_BYTES = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'"#<>\\')

# The length of " HTTP/1.1" and CRLF.
_LINE_END = 11

# RFC 9113, 8.2: "Field names MUST be converted to lowercase".
FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")

# RFC 9113, 8.2.1: "A field value MUST NOT contain the zero value (ASCII NUL, 0x00), line feed
# (ASCII LF, 0x0a), or carriage return (ASCII CR, 0x0d) at any position", nor "start or end with
# an ASCII whitespace character". The rules of HTTP/1.1 reject the other control characters.
FIELD_VALUE = re.compile(rb"(?:[^\0\r\n\t ](?:[^\0\r\n]*[^\0\r\n\t ])?)?")

# In the request line and in Host, whitespace would end the value.
_CONTROL_OR_SPACE = re.compile(rb"[\0-\x20\x7f]")

_PSEUDO_FIELDS = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))

# RFC 9113, 8.2.2.
CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)

# The spelling that the fast paths of `RequestHeadParser` recognise.
_SPELLINGS = {b"content-length": b"Content-Length"}


class RequestFieldsError(RequestError):
    """
    A request that is rejected.

    Attributes:
        line: The request line, for logs.
        malformed: Whether RFC 9113, 8.1.1 calls the request malformed, so that it is a stream
            error. Otherwise the client gets a response with `status`.
        grpc: Whether the request is known to be gRPC.
    """

    def __init__(
        self, status: int, reason: str, line: bytes, malformed: bool, grpc: bool = False
    ) -> None:
        super().__init__(status, reason)
        self.line = line
        self.malformed = malformed
        self.grpc = grpc


@frozen
class TrailerSection:
    """
    A section without pseudo-fields: trailers.

    Attributes:
        text: The field lines that may be forwarded, each ended by CRLF.
    """

    text: bytes


@frozen
class ExtendedConnect:
    """
    A request for a WebSocket (RFC 8441).

    Attributes:
        head: The same as a request for an upgrade in HTTP/1.1, without Sec-WebSocket-Key.
    """

    head: RequestHead


FieldSection = Union[RequestHead, TrailerSection, ExtendedConnect]


class RequestInterpreter:
    """
    Interprets decoded field sections of requests.

    Args:
        parser: Parses the requests as HTTP/1.1.
        secure: The requests are received over TLS.
    """

    def __init__(self, parser: RequestHeadParser, secure: bool) -> None:
        self._parser = parser
        self._secure = secure

    def interpret(self, fields: Sequence[tuple[bytes, bytes]]) -> FieldSection:
        """
        Interpret one section, which is a request if it has pseudo-fields.

        The head of a request never has a body that is chunked: whether a body without
        Content-Length follows is not in the fields.

        Raises:
            RequestFieldsError: The request, or the trailer section, is rejected.
        """
        pseudo, lines, hosts = _split_fields(fields)
        if not pseudo:
            return _interpret_trailers(lines + [b"host: " + host for host in hosts])
        line = _request_line(pseudo)
        method, protocol = pseudo.get(b":method", b""), pseudo.get(b":protocol")
        if not TOKEN.fullmatch(method):
            raise _malformed("missing or invalid :method", line)
        if any(_CONTROL_OR_SPACE.search(value) for value in pseudo.values()):
            raise _malformed("control character or space in a pseudo-header", line)
        if protocol is not None:
            if method != b"CONNECT":
                raise _malformed(":protocol requires CONNECT", line)
        elif method == b"CONNECT":
            if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
                raise _malformed("CONNECT requires :authority alone", line)
            raise RequestFieldsError(501, "CONNECT is not supported", line, malformed=False)
        self._check_scheme(pseudo, lines, line)
        path = pseudo.get(b":path", b"")
        if path[:1] != b"/" and (path != b"*" or method != b"OPTIONS"):
            raise _malformed("missing or invalid :path", line)
        host = _host(pseudo, hosts, line)
        if protocol is None:
            return self._parse(method, path, host, lines, line)
        if protocol.lower() != WEBSOCKET:
            raise RequestFieldsError(501, "unsupported :protocol", line, malformed=False)
        head = self._parse(b"GET", path, host, _upgrade_lines(lines), line)
        if head.length:
            # RFC 9110, 9.3.6: "A CONNECT request message does not have content". The server would
            # take what follows on its connection for that content.
            raise _malformed("Content-Length of a CONNECT request", line)
        return ExtendedConnect(head)

    def with_path(self, section: FieldSection, path: bytes) -> FieldSection | None:
        """Return the same request for another path; `None` if it has to be interpreted."""
        if (
            type(section) is not RequestHead
            or not path
            or path[0] != _SLASH
            or path.translate(None, _PATH_BYTES)
            or section.target[0] != _SLASH
        ):
            return None
        method = section.method
        start = len(method) + 1
        if start + len(path) + _LINE_END > MAX_REQUEST_LINE:
            return None
        text = section.forward_bytes
        return RequestHead(
            method,
            path,
            1,
            section.host,
            b"".join((text[:start], path, text[start + len(section.target) :])),
            section.length,
            section.persistent,
            section.rare_fields,
            section.max_forwards_exhausted,
            section.repeated_block,
        )

    def _check_scheme(self, pseudo: dict[bytes, bytes], lines: list[bytes], line: bytes) -> None:
        scheme = pseudo.get(b":scheme")
        if not scheme:
            raise _malformed("missing :scheme", line)
        # RFC 9110, 7.4: 'a request for an "https" resource MUST be rejected unless it has been
        # received over a connection that has been secured'.
        scheme = scheme.lower()
        if scheme != b"http" and not (self._secure and scheme == b"https"):
            raise _rejected(RequestError(400, "unsupported :scheme"), lines, line)

    def _parse(
        self, method: bytes, path: bytes, host: bytes | None, lines: list[bytes], line: bytes
    ) -> RequestHead:
        """Parse the text that HTTP/1.1 would have carried."""
        host_line = [] if host is None else [b"Host: " + host]
        text = [b"%b %b HTTP/1.1" % (method, path), *host_line, *lines, b""]
        try:
            return self._parser.parse(b"\r\n".join(text))
        except RequestError as error:
            raise _rejected(error, lines, line) from None


def _split_fields(
    fields: Sequence[tuple[bytes, bytes]],
) -> tuple[dict[bytes, bytes], list[bytes], list[bytes]]:
    """
    Return the pseudo-fields, the lines of the other fields, and the values of Host.

    Raises:
        RequestFieldsError: A field is not allowed in HTTP/2.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    hosts: list[bytes] = []
    crumbs: list[bytes] = []
    regular_seen = False
    for name, value in fields:
        if name[:1] == b":":
            # RFC 9113, 8.3: all pseudo-fields "MUST appear in a field block before all regular
            # field lines", and not more than once.
            if regular_seen or name in pseudo or name not in _PSEUDO_FIELDS:
                raise _malformed("unknown, repeated or late pseudo-header", _request_line(pseudo))
            pseudo[name] = value
            continue
        regular_seen = True
        if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
            raise _malformed("invalid header line", _request_line(pseudo))
        if name in CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
            raise _malformed("connection-specific header", _request_line(pseudo))
        if name == b"cookie":
            crumbs.append(value)
        elif name == b"host":
            hosts.append(value)
        else:
            lines.append(b"%b: %b" % (_SPELLINGS.get(name, name), value))
    if crumbs:
        # RFC 9113, 8.2.3: the crumbs "MUST be concatenated into a single octet string using the
        # two-octet delimiter".
        lines.append(b"cookie: " + b"; ".join(crumbs))
    return pseudo, lines, hosts


def _host(pseudo: dict[bytes, bytes], hosts: list[bytes], line: bytes) -> bytes | None:
    """Return the value for Host; `None` if the request has neither Host nor :authority."""
    authority = pseudo.get(b":authority")
    if len(hosts) > 1:
        raise _malformed("more than one Host header", line)
    if authority is None:
        return hosts[0] if hosts else None
    # RFC 9113, 8.3.1: ":authority" MUST NOT be empty where the scheme has an authority.
    if not authority:
        raise _malformed("empty :authority", line)
    scheme = pseudo[b":scheme"].lower()
    if hosts and not is_same_authority(hosts[0], authority, scheme):
        raise _malformed("Host header contradicts :authority", line)
    return authority


def _upgrade_lines(lines: list[bytes]) -> list[bytes]:
    """Add the fields that replace extended CONNECT in HTTP/1.1 (RFC 8441, 5)."""
    names = {line.partition(b":")[0] for line in lines}
    lines = [line for line in lines if not line.startswith(b"sec-websocket-key:")]
    lines += [b"Upgrade: websocket", b"Connection: Upgrade"]
    if b"sec-websocket-version" not in names:
        lines.append(b"Sec-WebSocket-Version: 13")
    return lines


def _interpret_trailers(lines: list[bytes]) -> TrailerSection:
    try:
        return TrailerSection(filter_trailers(lines))
    except BodyError as error:
        raise _malformed(str(error), b"") from None


def _request_line(pseudo: dict[bytes, bytes]) -> bytes:
    """Return what the log shows as request line."""
    path = pseudo.get(b":path") or pseudo.get(b":authority", b"")
    return b"%b %b HTTP/2.0" % (pseudo.get(b":method", b""), path)


def _rejected(error: RequestError, lines: list[bytes], line: bytes) -> RequestFieldsError:
    """Return the error of a request with the field lines `lines`, which is not malformed."""
    grpc = is_grpc(b"\r\n".join((line, *lines, b"")))
    return RequestFieldsError(error.status, error.reason, line, malformed=False, grpc=grpc)


def _malformed(reason: str, line: bytes) -> RequestFieldsError:
    return RequestFieldsError(400, reason, line, malformed=True)
