"""
Field lines: checked once, remembered while they are in use.

Clients and servers repeat themselves, so most field lines of a head have been
seen before. A line that was checked and means nothing to a proxy is *plain*:
it goes on as it came, and knowing it again is one look into a set. Lines that
a proxy must understand are *special* and are returned as `Field`. Framing,
hop-by-hop fields and credentials are never remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from balancebeam.protocols.http1.grammar import FIELD_LINE, VALUE_BYTES, is_host

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

_HOP_BY_HOP: Mapping[bytes, int] = {
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

REQUEST_KINDS: Mapping[bytes, int] = {
    **_HOP_BY_HOP,
    b"host": HOST,
    b"expect": EXPECT,
    b"http2-settings": HOP_BY_HOP,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    b"max-forwards": MAX_FORWARDS,
    b"cookie": CREDENTIAL,
    b"authorization": CREDENTIAL,
}

RESPONSE_KINDS: Mapping[bytes, int] = {
    **_HOP_BY_HOP,
    b"date": DATE,
    b"set-cookie": CREDENTIAL,
    b"www-authenticate": CREDENTIAL,
    b"authentication-info": CREDENTIAL,
}


_UNDERSCORE_ALIASES = frozenset(
    (FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, CONNECTION, HOP_BY_HOP, UPGRADE, TE)
)


class Field(NamedTuple):
    """
    A field line that a proxy has to look at.

    `name` is in lower case, `value` without the blanks around it, `line` as
    it came without its line end.
    """

    kind: int
    name: bytes
    value: bytes
    line: bytes


# Longer lines and names are not remembered.
MAX_LINE_LENGTH = 1024
MAX_NAME_LENGTH = 64
MAX_NAMES = 1024


class FieldError(Exception):
    """A line that is no field line."""


class FieldLineCache:
    """
    Recognises field lines, and remembers those that it may.

    Two generations bound it: lines in use move from the older to the younger
    one, and when the younger is full it becomes the older. A client that
    never repeats itself costs others one more check per generation, no more.

    `kinds` maps lower-case names to kinds; `max_entries` and `max_bytes` bound one
    generation. `plain` and `special` are for readers in a hurry: the lines of
    the younger generation, to look into and not to change.
    """

    def __init__(
        self, kinds: Mapping[bytes, int], max_entries: int = 4096, max_bytes: int = 512 * 1024
    ) -> None:
        self.plain: set[bytes] = set()
        self.special: dict[bytes, Field] = {}
        self._kinds = kinds
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._older_plain: set[bytes] = set()
        self._older_special: dict[bytes, Field] = {}
        self._cached_bytes = 0
        # Names of plain fields as they are spelled: values change, names do not.
        self._plain_names: set[bytes] = set()

    def special_fields(self, lines: Iterable[bytes]) -> list[Field]:
        """
        The special fields among `lines`, in order; all others are plain.

        Raises `FieldError` for a line that is none.
        """
        found: list[Field] = []
        for line in lines:
            if line not in self.plain:
                field = self.special.get(line) or self.classify(line)
                if field is not None:
                    found.append(field)
        return found

    def contains_all(self, lines: Iterable[bytes]) -> bool:
        """Whether all of `lines` are remembered."""
        return all(line in self.plain or line in self.special for line in lines)

    def all_plain(self, lines: Iterable[bytes]) -> bool:
        """Whether all of `lines` are remembered, and plain."""
        return all(line in self.plain for line in lines)

    def classify(self, line: bytes) -> Field | None:
        """
        The field in a line that is in neither `plain` nor `special`; `None`
        if it is plain. Raises `FieldError` if it is no field line.
        """
        if line in self._older_plain:
            self._store(line, None)
            return None
        name, colon, value = line.partition(b":")
        if name in self._plain_names and colon and not value.translate(None, VALUE_BYTES):
            self._store(line, None)
            return None
        field = self._older_special.get(line) or parse_field(line, self._kinds)
        if field.kind == PLAIN:
            self._store(line, None)
            if len(self._plain_names) < MAX_NAMES and len(name) <= MAX_NAME_LENGTH:
                self._plain_names.add(name)
            return None
        if field.kind == HOST:
            self._store(line, field)
        return field

    def _store(self, line: bytes, field: Field | None) -> None:
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


def parse_field(line: bytes, kinds: Mapping[bytes, int]) -> Field:
    """
    Take one field line apart.

    In a request, a name that differs from a special one only by "_" for "-" is
    that field to many servers (CGI and WSGI join the two): as framing it is an
    error, and as a forwarding or hop-by-hop field it does not pass.

    Raises `FieldError`.
    """
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise FieldError("a malformed field line")
    name = match.group(1).lower()
    value = match.group(2).strip(b" \t")
    kind = kinds.get(name, PLAIN)
    if kind == HOST:
        # RFC 9112, 3.2: a server MUST answer 400 to "a Host header field with
        # an invalid field value".
        if not is_host(value):
            raise FieldError("a malformed Host field")
    elif kind == DATE and line.startswith(b"Date:"):
        # Spelled like this it is found by looking for it; see `responses`.
        kind = PLAIN
    elif kind == PLAIN and b"_" in name and kinds is REQUEST_KINDS:
        kind = _alias_kind(name)
    return Field(kind, name, value, line)


def _alias_kind(name: bytes) -> int:
    kind = REQUEST_KINDS.get(name.replace(b"_", b"-"), PLAIN)
    if kind in (CONTENT_LENGTH, TRANSFER_ENCODING):
        raise FieldError("a field name that looks like a framing field")
    return HOP_BY_HOP if kind in _UNDERSCORE_ALIASES else PLAIN


def remove_lines(head: bytes, lines: Iterable[bytes]) -> bytes:
    """
    `head`, a first line and field lines that each end with CRLF, without some
    of its field lines.
    """
    for line in lines:
        head = head.replace(b"\r\n" + line + b"\r\n", b"\r\n", 1)
    return head


def field_values(head: bytes, name: bytes) -> list[bytes]:
    """
    The values of the fields called `name`, in lower case, in a head that was
    read; also of their twins by underscore, which are the same to some servers.
    """
    lines = head.split(b"\r\n")[1:]
    return [line[len(name) + 1 :].strip(b" \t") for line in lines if _has_name(line, name)]


def remove_fields(head: bytes, name: bytes) -> bytes:
    """`head`, which was read, without those that `field_values` finds."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not _has_name(line, name))


def _has_name(line: bytes, name: bytes) -> bool:
    start = line[: len(name) + 1]
    return start[-1:] == b":" and start[:-1].lower().replace(b"_", b"-") == name
