"""
HTTP/2 conformance cases and a client that runs them.

The cases are the ones of h2spec, a public conformance tool, in its numbering. The client
shares no code with the balancer: frames are built from bytes, and read by hyperframe and hpack.
`python -m tests.helpers.h2_conformance HOST PORT` runs them against any server.
"""

from __future__ import annotations

from tests.helpers.h2_conformance.case import Case
from tests.helpers.h2_conformance.frame_cases import FRAME_CASES
from tests.helpers.h2_conformance.generic_cases import GENERIC_CASES
from tests.helpers.h2_conformance.hpack_cases import HPACK_CASES
from tests.helpers.h2_conformance.message_cases import MESSAGE_CASES
from tests.helpers.h2_conformance.stream_cases import STREAM_CASES

CASES: tuple[Case, ...] = (
    *GENERIC_CASES,
    *STREAM_CASES,
    *FRAME_CASES,
    *MESSAGE_CASES,
    *HPACK_CASES,
)
