"""
Field lines: parsing, classification, and a cache of lines seen before.

Clients and servers repeat themselves, so most field lines of a head have been
seen before. A valid line that a proxy need not interpret is *plain*: it is
forwarded unchanged, and recognized by one look-up in a set. Lines that a proxy
must interpret are *special* and are returned as `Field`. Framing fields,
hop-by-hop fields and credentials are never cached.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from balancebeam.protocols.http1.grammar import FIELD_LINE, VALUE_BYTES, is_host


class FieldKind(enum.IntEnum):
    """
    How a proxy treats a field.

    Attributes:
        PLAIN: Forwarded unchanged, not interpreted.
        HOST: Host of a request.
        CONTENT_LENGTH, TRANSFER_ENCODING: Message framing.
        CONNECTION: Connection options (RFC 9110, 7.6.1).
        HOP_BY_HOP: Removed, not interpreted.
        UPGRADE, TE, EXPECT, MAX_FORWARDS: Interpreted by the proxy.
        FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST: X-Forwarded fields.
        CREDENTIAL: Forwarded unchanged, never cached.
        DATE: A Date that is not spelled `Date`; see `parse_field`.
        TRAILER: Forwarded unchanged, as trailer fields are; never cached.
        CLIENT_CERT: Client-Cert and Client-Cert-Chain (RFC 9440).
    """

    PLAIN = 0
    HOST = 1
    CONTENT_LENGTH = 2
    TRANSFER_ENCODING = 3
    CONNECTION = 4
    HOP_BY_HOP = 5
    UPGRADE = 6
    TE = 7
    EXPECT = 8
    FORWARDED_FOR = 9
    FORWARDED_PROTO = 10
    FORWARDED_HOST = 11
    MAX_FORWARDS = 12
    CREDENTIAL = 13
    DATE = 14
    TRAILER = 15
    CLIENT_CERT = 16

    # Kinds are keys of dictionaries; Enum hashes the name by a Python function.
    __hash__ = int.__hash__


# Heads are parsed with these: `kind is f.HOST` takes 18 ns, `kind == FieldKind.HOST`
# 130 ns (CPython 3.11).
PLAIN = FieldKind.PLAIN
HOST = FieldKind.HOST
CONTENT_LENGTH = FieldKind.CONTENT_LENGTH
TRANSFER_ENCODING = FieldKind.TRANSFER_ENCODING
CONNECTION = FieldKind.CONNECTION
HOP_BY_HOP = FieldKind.HOP_BY_HOP
UPGRADE = FieldKind.UPGRADE
TE = FieldKind.TE
EXPECT = FieldKind.EXPECT
FORWARDED_FOR = FieldKind.FORWARDED_FOR
FORWARDED_PROTO = FieldKind.FORWARDED_PROTO
FORWARDED_HOST = FieldKind.FORWARDED_HOST
MAX_FORWARDS = FieldKind.MAX_FORWARDS
CREDENTIAL = FieldKind.CREDENTIAL
DATE = FieldKind.DATE
TRAILER = FieldKind.TRAILER
CLIENT_CERT = FieldKind.CLIENT_CERT

_HOP_BY_HOP: Mapping[bytes, FieldKind] = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"te": TE,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"proxy-authenticate": HOP_BY_HOP,
    b"proxy-authorization": HOP_BY_HOP,
    b"trailer": TRAILER,
}

# Kinds by lower-case name; other names are `PLAIN`.
REQUEST_KINDS: Mapping[bytes, FieldKind] = {
    **_HOP_BY_HOP,
    b"host": HOST,
    b"expect": EXPECT,
    b"http2-settings": HOP_BY_HOP,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    b"client-cert": CLIENT_CERT,
    b"client-cert-chain": CLIENT_CERT,
    b"max-forwards": MAX_FORWARDS,
    b"cookie": CREDENTIAL,
    b"authorization": CREDENTIAL,
}

RESPONSE_KINDS: Mapping[bytes, FieldKind] = {
    **_HOP_BY_HOP,
    b"date": DATE,
    b"set-cookie": CREDENTIAL,
    b"www-authenticate": CREDENTIAL,
    b"authentication-info": CREDENTIAL,
}

# Kinds that are removed from a request also where "_" stands for "-".
_UNDERSCORE_ALIASES = frozenset(
    (
        *(FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, CLIENT_CERT),
        *(CONNECTION, HOP_BY_HOP, UPGRADE, TE),
    )
)


class Field(NamedTuple):
    """
    A field line that a proxy has to interpret.

    Attributes:
        kind: How it is treated.
        name: The name in lower case.
        value: The value without whitespace around it.
        line: The line as received, without its CRLF.
    """

    kind: FieldKind
    name: bytes
    value: bytes
    line: bytes


# Bounds of what one line can take of a cache, in bytes. Longer lines differ from
# request to request (tokens, tracing), so a cached copy would hardly be used.
MAX_LINE_LENGTH = 1024
MAX_NAME_LENGTH = 64
# Names of plain fields per cache, 64 KiB at most. IANA has registered a few hundred.
MAX_NAMES = 1024


class FieldError(Exception):
    """A line that is not a valid field line."""


class FieldLineCache:
    """
    Parses field lines, and caches the lines that need not be parsed again.

    Two generations bound the cache: a line in use moves from the older to the
    younger one, and when the younger is full it becomes the older. A client that
    never repeats a line costs the others one more parse per generation.

    Attributes:
        plain: Plain lines of the younger generation. Hot paths of the parsers
            look into it themselves; they do not change it.
        special: Cacheable special lines of the younger generation, and what they
            mean. Likewise.
    """

    def __init__(
        self,
        kinds: Mapping[bytes, FieldKind],
        max_entries: int = 4096,
        max_bytes: int = 512 * 1024,
    ) -> None:
        """
        Create an empty cache.

        Args:
            kinds: Kinds by lower-case name; other names are plain.
            max_entries: Number of lines of one generation.
            max_bytes: Total length of the lines of one generation.
        """
        self.plain: set[bytes] = set()
        self.special: dict[bytes, Field] = {}
        self._kinds = kinds
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._older_plain: set[bytes] = set()
        self._older_special: dict[bytes, Field] = {}
        self._cached_bytes = 0
        # Names of plain fields, as spelled: values change, names do not.
        self._plain_names: set[bytes] = set()

    def special_fields(self, lines: Iterable[bytes]) -> list[Field]:
        """
        Return the special fields among `lines`, in order; all others are plain.

        Raises:
            FieldError: A line is not a field line.
        """
        fields: list[Field] = []
        for line in lines:
            if line not in self.plain:
                field = self.special.get(line) or self.classify(line)
                if field is not None:
                    fields.append(field)
        return fields

    def contains_all(self, lines: Iterable[bytes]) -> bool:
        """Whether all of `lines` are cached in the younger generation."""
        return all(line in self.plain or line in self.special for line in lines)

    def all_plain(self, lines: Iterable[bytes]) -> bool:
        """Whether all of `lines` are cached in the younger generation as plain lines."""
        return all(line in self.plain for line in lines)

    def classify(self, line: bytes) -> Field | None:
        """
        Parse a line that is in neither `plain` nor `special`, and cache it if allowed.

        Returns:
            The field, or `None` if it is plain.

        Raises:
            FieldError: It is not a field line.
        """
        if line in self._older_plain:
            self._store(line, None)
            return None
        name, colon, value = line.partition(b":")
        if name in self._plain_names and colon and not value.translate(None, VALUE_BYTES):
            self._store(line, None)
            return None
        field = self._older_special.get(line) or parse_field(line, self._kinds)
        if field.kind is PLAIN:
            self._store(line, None)
            if len(self._plain_names) < MAX_NAMES and len(name) <= MAX_NAME_LENGTH:
                self._plain_names.add(name)
            return None
        if field.kind is HOST:
            self._store(line, field)
        return field

    def _store(self, line: bytes, field: Field | None) -> None:
        """Cache a line in the younger generation: with its field, or `None` for a plain line."""
        if len(line) > MAX_LINE_LENGTH:
            return
        if self._cached_bytes + len(line) > self._max_bytes or (
            len(self.plain) + len(self.special) >= self._max_entries
        ):
            self._older_plain, self.plain = self.plain, set()
            self._older_special, self.special = self.special, {}
            self._cached_bytes = 0
        self._cached_bytes += len(line)
        if field is None:
            self.plain.add(line)
        else:
            self.special[line] = field


def parse_field(line: bytes, kinds: Mapping[bytes, FieldKind]) -> Field:
    """
    Parse one field line.

    Many servers take a request field whose name differs from a special one only by
    "_" for "-" for that field, because CGI and WSGI do not distinguish the two. An
    alias of a framing field is an error; an alias of a forwarding or hop-by-hop
    field is removed.

    Args:
        line: The line without its CRLF.
        kinds: Kinds by lower-case name; other names are plain.

    Raises:
        FieldError: It is not a valid field line.
    """
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise FieldError("invalid header line")
    name = match.group(1).lower()
    value = match.group(2).strip(b" \t")
    kind = kinds.get(name, PLAIN)
    if kind is HOST:
        # RFC 9112, 3.2: a server MUST answer 400 to "a Host header field with
        # an invalid field value".
        if not is_host(value):
            raise FieldError("invalid Host header")
    elif kind is DATE and line.startswith(b"Date:"):
        # `ResponseHeadParser` finds this spelling by a search of the whole head.
        kind = PLAIN
    elif kind is PLAIN and b"_" in name and kinds is REQUEST_KINDS:
        kind = _alias_kind(name)
    return Field(kind, name, value, line)


def _alias_kind(name: bytes) -> FieldKind:
    """Return the kind of a request field with an underscore in its name."""
    kind = REQUEST_KINDS.get(name.replace(b"_", b"-"), PLAIN)
    if kind in (CONTENT_LENGTH, TRANSFER_ENCODING):
        raise FieldError("header with underscores that resembles a framing header")
    return HOP_BY_HOP if kind in _UNDERSCORE_ALIASES else PLAIN


def remove_lines(head: bytes, lines: Iterable[bytes]) -> bytes:
    """
    Remove field lines from a head, each once.

    Args:
        head: A first line and field lines, each ended by CRLF.
        lines: Whole lines without CRLF.
    """
    for line in lines:
        head = head.replace(b"\r\n" + line + b"\r\n", b"\r\n", 1)
    return head


def field_values(head: bytes, name: bytes) -> list[bytes]:
    """
    Return the values of one field in a valid head, without whitespace around them.

    Fields whose names have "_" for "-" are included: some servers take them for
    the same field.

    Args:
        head: A first line and field lines, each ended by CRLF.
        name: The name in lower case, with hyphens.
    """
    lines = head.split(b"\r\n")[1:]
    return [line[len(name) + 1 :].strip(b" \t") for line in lines if _has_name(line, name)]


def remove_fields(head: bytes, name: bytes) -> bytes:
    """Remove from a valid head the fields that `field_values` returns."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not _has_name(line, name))


def _has_name(line: bytes, name: bytes) -> bool:
    """Whether the name of a field line is `name`, apart from case and underscores."""
    start = line[: len(name) + 1]
    return start[-1:] == b":" and start[:-1].lower().replace(b"_", b"-") == name
