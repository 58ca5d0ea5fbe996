"""Whether a request that failed at one server may be tried at another."""

from __future__ import annotations

from attrs import frozen

from balancebeam.http1.syntax import IDEMPOTENT_METHODS
from balancebeam.model import FailureKind, UpstreamFailure


@frozen
class RetryPolicy:
    """`attempts` bounds the servers that are tried for one request."""

    attempts: int = 3

    def allows(self, method: bytes, failure: UpstreamFailure, replayable: bool) -> bool:
        """
        RFC 9110, 9.2.2: "A proxy MUST NOT automatically retry non-idempotent
        requests." What never left this machine is not a retry.

        `replayable`: all of the body that was sent is still here. A server
        that is slow is not helped by asking another one the same.
        """
        if failure.nothing_sent:
            return True
        if failure.kind is FailureKind.TIMEOUT:
            return False
        return replayable and method in IDEMPOTENT_METHODS
