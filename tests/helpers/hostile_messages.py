"""
Hostile and unusual HTTP messages, the outcome of each, and the RFC section that decides it.

`REQUESTS` and `RESPONSES` are sent over real sockets by
`tests/system/test_hostile_messages.py`. Their table in `docs/message-conformance.rst`
is printed by `python -m tests.helpers.hostile_messages`.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.helpers.hostile_requests import REQUESTS
from tests.helpers.hostile_responses import RESPONSES
from tests.helpers.message_cases import TRUNCATED, RequestCase, ResponseCase

__all__ = ["REQUESTS", "RESPONSES", "TRUNCATED", "RequestCase", "ResponseCase", "rst_table"]


def rst_table() -> str:
    """Return the page `docs/message-conformance.rst`."""
    lines = [
        "Message conformance",
        "===================",
        "",
        "The outcome of hostile and unusual messages, and the section of the RFC that decides it:",
        "9110 is HTTP semantics, 9112 is HTTP/1.1. A test sends all of them over real",
        "sockets, to a balancer with a server behind it.",
        "",
        "A request is forwarded, or it gets the status shown and nothing of it reaches a server.",
        "Messages are shown with Python's escapes.",
        "",
        f"Requests ({len(REQUESTS)})",
        "-" * len(f"Requests ({len(REQUESTS)})"),
        "",
    ]
    lines += _rows(
        (case.name, "forwarded" if case.status == 200 else str(case.status), case.section)
        for case in REQUESTS
    )
    title = f"Responses ({len(RESPONSES)})"
    lines += ["", title, "-" * len(title), ""]
    lines += _rows((case.name, _outcome(case), case.section) for case in RESPONSES)
    return "\n".join(lines) + "\n"


def _outcome(case: ResponseCase) -> str:
    """Return the outcome of a response as text."""
    if case.status == TRUNCATED:
        return "502, or the client's connection is closed within the body"
    if case.status == 502 or case.reused:
        return str(case.status)
    return f"{case.status}, and the connection to the server is not reused"


def _rows(cases: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return a table of messages, outcomes and sections, as lines."""
    rows = [".. list-table::", "   :header-rows: 1", ""]
    for row in (("message", "outcome", "RFC"), *cases):
        # A literal must not begin or end with a space, hence the quotation marks.
        name = row[0] if row[0] == "message" else f'``"{row[0]}"``'
        rows += [f"   * - {name}", f"     - {row[1]}", f"     - {row[2]}"]
    return rows


if __name__ == "__main__":
    print(rst_table(), end="")
