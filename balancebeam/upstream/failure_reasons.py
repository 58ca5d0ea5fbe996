"""Failed attempts to connect, as kinds of failures: for requests and for health checks."""

from __future__ import annotations

import os

from twisted.internet import error
from twisted.python.failure import Failure

from balancebeam.core.failures import FailureKind
from balancebeam.tls.errors import TlsError


def classify_connect_failure(reason: Failure) -> tuple[FailureKind, str]:
    """The kind and the detail of a failed attempt to connect."""
    timed_out = reason.check(error.TimeoutError, error.TCPTimedOutError) is not None
    kind = FailureKind.CONNECT_TIMEOUT if timed_out else FailureKind.UNREACHABLE
    number = getattr(reason.value, "osError", None)
    if isinstance(number, int):
        return kind, os.strerror(number)
    # Twisted's ConnectError without an errno contains only the repr of a Failure.
    lost = reason.check(error.ConnectError) and "Failure instance" in str(reason.value)
    return kind, "Connection lost" if lost else reason.getErrorMessage()


def tls_error_text(reason: Failure) -> str:
    """The TLS error that has ended a connection, such as an alert; empty without one."""
    # The text of Twisted's `ConnectionLost` begins with its docstring.
    return str(reason.value.args[0]) if isinstance(reason.value, TlsError) else ""
