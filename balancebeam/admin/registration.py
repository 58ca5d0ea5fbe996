"""S4's `POST /register`, whichever way it comes in."""

from __future__ import annotations

import json
from typing import Any

from balancebeam.admin.operations import (
    AdminError,
    AdminOperations,
    NotHealthy,
    Pool,
    parse_registration,
)


async def register(
    operations: AdminOperations, pool: Pool, body: bytes, unknown_field_status: int = 403
) -> tuple[int, bytes]:
    """
    The status and the body of the answer to a server that wants to be in
    `pool`. A field that is not known is answered with the status `unknown_field_status`.
    """
    try:
        registration = parse_registration(body, unknown_field_status)
        done = await operations.register(pool, registration)
    except AdminError as mistake:
        return mistake.status, jsend_fail(mistake.text)
    except NotHealthy as why:
        return 404, jsend_fail(str(why))
    return 200, jsend_success(done)


def jsend_success(data: Any) -> bytes:
    """The JSend form of what went well."""
    return json.dumps({"status": "success", "data": data}).encode()


def jsend_fail(title: str) -> bytes:
    """The JSend form of a mistake of who asked, as S4 has it."""
    return json.dumps({"status": "fail", "data": {"title": title}}).encode()
