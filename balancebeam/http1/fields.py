"""
Field lines: checked once, remembered while they are in use.

Clients and servers repeat themselves, so most field lines of a head have been
seen before. A line that was checked and means nothing to a proxy is *plain*:
it goes on as it came, and knowing it again is one look into a set. Lines that
a proxy must understand are *special* and are returned as `Field`. Framing,
hop-by-hop fields and credentials are never remembered.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Set

from balancebeam.http1.syntax import FIELD_LINE

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

_REMEMBERED_KINDS = frozenset((HOST, DATE))


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


# The two lines that nearly every client or server sends: told apart without a
# pattern. A fixed table, not a memory.
_COMMON: Mapping[bytes, Field] = {
    line: Field(CONNECTION, b"connection", line[12:], line)
    for line in (b"Connection: keep-alive", b"Connection: close", b"Connection: Keep-Alive")
}


class FieldError(Exception):
    """A line that is no field line."""


class FieldMemory:
    """
    Recognises field lines, and remembers those that it may.

    Two generations bound it: lines in use move from the older to the younger
    one, and when the younger is full it becomes the older. A client that
    never repeats itself costs others one more check per generation, no more.

    `kinds` maps lower-case names to kinds; `entries` and `octets` bound one
    generation.
    """

    LONGEST_LINE = 1024

    def __init__(
        self, kinds: Mapping[bytes, int], entries: int = 4096, octets: int = 512 * 1024
    ) -> None:
        self._kinds = kinds
        self._entries = entries
        self._octets = octets
        self._plain: Set[bytes] = set()
        self._older_plain: Set[bytes] = set()
        self._special: Dict[bytes, Field] = {}
        self._older_special: Dict[bytes, Field] = {}
        self._held = 0

    def specials(self, lines: Iterable[bytes]) -> List[Field]:
        """
        The special fields among `lines`, in order; all others are plain.

        Raises `FieldError` for a line that is none.
        """
        plain = self._plain
        special = self._special
        found: List[Field] = []
        for line in lines:
            if line in plain:
                continue
            field = special.get(line) or _COMMON.get(line) or self._learn(line)
            if field is not None:
                found.append(field)
        return found

    def _learn(self, line: bytes) -> Optional[Field]:
        if line in self._older_plain:
            self._remember(line, None)
            return None
        field = self._older_special.get(line)
        if field is None:
            field = read_field(line, self._kinds)
        if field.kind == PLAIN:
            self._remember(line, None)
            return None
        if field.kind in _REMEMBERED_KINDS:
            self._remember(line, field)
        return field

    def _remember(self, line: bytes, field: Optional[Field]) -> None:
        if len(line) > self.LONGEST_LINE:
            return
        if self._held + len(line) > self._octets or (
            len(self._plain) + len(self._special) >= self._entries
        ):
            self._older_plain, self._plain = self._plain, set()
            self._older_special, self._special = self._special, {}
            self._held = 0
        self._held += len(line)
        if field is None:
            self._plain.add(line)
        else:
            self._special[line] = field


def read_field(line: bytes, kinds: Mapping[bytes, int]) -> Field:
    """
    Take one field line apart.

    A name that differs from a special one only by "_" for "-" is that special
    field to many servers (CGI and WSGI join the two), so it is taken for it:
    as framing it is an error, otherwise it is kept from passing as something
    else than we checked.

    Raises `FieldError`.
    """
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise FieldError("a malformed field line")
    name = match.group(1).lower()
    kind = kinds.get(name, PLAIN)
    if kind == PLAIN and b"_" in name:
        kind = kinds.get(name.replace(b"_", b"-"), PLAIN)
        if kind in (CONTENT_LENGTH, TRANSFER_ENCODING, HOST):
            raise FieldError("a field name that looks like a framing field")
        if kind != PLAIN:
            kind = HOP_BY_HOP
    return Field(kind, name, match.group(2).strip(b" \t"), line)


def without(block: bytes, lines: Iterable[bytes]) -> bytes:
    """
    `block`, field lines that each end with CRLF, without some of its lines.
    """
    # The line end before the first line makes every line start with one.
    block = b"\r\n" + block
    for line in lines:
        block = block.replace(b"\r\n" + line + b"\r\n", b"\r\n", 1)
    return block[2:]
