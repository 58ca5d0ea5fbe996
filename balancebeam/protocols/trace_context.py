"""
W3C Trace Context: the fields `traceparent` and `tracestate`.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re

from attrs import frozen

# "2. Trace Context HTTP Headers Format": all digits are in lower case.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

# "2.2.1. version": "Version ff is invalid."
_INVALID_VERSION = b"ff"

SAMPLED = 0x01

# The flags of version 00 that are forwarded: sampled, and of the draft of level 2 the one for a
# random trace id. All others "MUST" be set to zero.
_KNOWN_FLAGS = 0x03


@frozen
class TraceParent:
    """
    A valid `traceparent`.

    Attributes:
        trace_id: The trace, 128 bits, not 0.
        parent_id: The span of the sender, 64 bits, not 0.
        flags: The flags of version 00.
        is_current: Whether the version is 00, so that the value may be forwarded as it is.
    """

    trace_id: int
    parent_id: int
    flags: int
    is_current: bool = True

    @property
    def sampled(self) -> bool:
        """Whether the sender records the trace."""
        return bool(self.flags & SAMPLED)


def parse_traceparent(value: bytes) -> TraceParent | None:
    """
    Parse the value of a `traceparent` field; `None` if it is invalid.

    A higher version than 00 is parsed as the recommendation demands: its first four parts have
    the meaning of version 00, and anything else follows a dash.
    """
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == _INVALID_VERSION or (version == b"00" and rest is not None):
        return None
    parent = TraceParent(
        int(trace_id, 16), int(parent_id, 16), int(flags, 16) & _KNOWN_FLAGS, version == b"00"
    )
    return parent if parent.trace_id and parent.parent_id else None


def encode_traceparent(trace_id: int, parent_id: int, flags: int) -> bytes:
    """Return the value of a `traceparent` field of version 00."""
    return b"00-%032x-%016x-%02x" % (trace_id, parent_id, flags)
