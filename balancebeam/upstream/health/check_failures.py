"""Failed active health checks, with the wording of failed requests."""

from __future__ import annotations

from twisted.internet import defer, error
from twisted.python.failure import Failure

from balancebeam.core.failures import FailureKind, failure_reason
from balancebeam.core.settings import HealthCheckSettings
from balancebeam.upstream.failure_reasons import classify_connect_failure, tls_error_text
from balancebeam.upstream.health.errors import Unhealthy
from balancebeam.upstream.health.grpc_probe import describe_check
from balancebeam.upstream.tls_handshake import TlsHandshakeError


def check_failure_reason(failure: Failure, timeout: float) -> str:
    """
    Describe a failed check by the kinds of `FailureKind`, where one applies.

    Args:
        failure: What the probe raised.
        timeout: Time limit of the check in seconds.
    """
    # twisted.web wraps errors that occur while a response is pending: `reasons` of
    # ResponseNeverReceived and ResponseFailed.
    reasons = getattr(failure.value, "reasons", None)
    inner: Failure = reasons[0] if reasons else failure
    if inner.check(defer.TimeoutError, defer.CancelledError):
        return failure_reason(FailureKind.TIMEOUT, f"health check timed out after {timeout:g} s")
    if inner.check(error.ConnectionDone):
        return failure_reason(FailureKind.CLOSED)
    if inner.check(error.ConnectionLost):
        return failure_reason(FailureKind.RESET, tls_error_text(inner))
    if inner.check(error.ConnectError, TlsHandshakeError):
        return failure_reason(*classify_connect_failure(inner))
    if reasons:
        # twisted.web's ParseError has a text and the bytes in question; the text suffices.
        text = inner.value.args[0] if inner.value is not None and inner.value.args else ""
        return failure_reason(FailureKind.MALFORMED, str(text))
    return inner.getErrorMessage() or type(inner.value).__name__


def failure_detail(failure: Failure, settings: HealthCheckSettings) -> str:
    """Return what a failed check requested and what was returned, as text for logs."""
    if isinstance(failure.value, Unhealthy) and failure.value.detail:
        return failure.value.detail
    if settings.grpc is not None:
        requested = describe_check(settings.grpc)
    else:
        requested = "connection" if settings.path is None else f"GET {settings.path}"
    reason = check_failure_reason(failure, settings.effective_timeout)
    return f"{requested} failed: {reason.rstrip('.')}"
