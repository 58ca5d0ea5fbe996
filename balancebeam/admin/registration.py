"""`POST /register`: the response to a registration, for admin and traffic listeners."""

from __future__ import annotations

from balancebeam.admin.interfaces import Pool
from balancebeam.admin.operations import AdminOperations, NotHealthy
from balancebeam.admin.parsing import AdminError, parse_registration
from balancebeam.protocols.http1.local_reply import jsend_fail, jsend_success


async def register(
    operations: AdminOperations, pool: Pool, body: bytes, unknown_field_status: int = 403
) -> tuple[int, bytes]:
    """
    Register the server that `body` names.

    Args:
        operations: Checks and adds the server.
        pool: The pool that the server joins.
        body: The JSON body of the request.
        unknown_field_status: The status of the error for an unknown field.

    Returns:
        The status and the JSend body of the response.
    """
    try:
        registration = parse_registration(body, unknown_field_status)
        registered = await operations.register(pool, registration)
    except AdminError as error:
        return error.status, jsend_fail(error.text)
    except NotHealthy as error:
        return 404, jsend_fail(str(error))
    return 200, jsend_success(registered)
