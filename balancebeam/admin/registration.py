"""S4's `POST /register`, whichever way it comes in."""

from __future__ import annotations

import json
from typing import Any

from balancebeam.admin.operations import Mistake, NotAlive, Operator, Pool, read_registration


async def register(
    operator: Operator, pool: Pool, body: bytes, unknown: int = 403
) -> tuple[int, bytes]:
    """
    The status and the body of the answer to a server that wants to be in
    `pool`. A field that is not known is answered with the status `unknown`.
    """
    try:
        wish = read_registration(body, unknown)
        done = await operator.register(pool, wish)
    except Mistake as mistake:
        return mistake.status, failed(mistake.text)
    except NotAlive as why:
        return 404, failed(str(why))
    return 200, succeeded(done)


def succeeded(data: Any) -> bytes:
    """The JSend form of what went well."""
    return json.dumps({"status": "success", "data": data}).encode()


def failed(title: str) -> bytes:
    """The JSend form of a mistake of who asked, as S4 has it."""
    return json.dumps({"status": "fail", "data": {"title": title}}).encode()
