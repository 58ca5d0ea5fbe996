"""Settings of active health checks."""

from __future__ import annotations

from attrs import frozen

# The path of active health checks that an option or a program turns on without a path.
DEFAULT_CHECK_PATH = "/"

# The path of the checks of [pool.health] without a path, and of the check before a server is
# registered: a convention of HTTP services, and the path of the Go balancer that is replaced.
DEFAULT_HEALTH_PATH = "/health"


@frozen
class HealthCheckSettings:
    """
    Active health checks.

    Attributes:
        path: target of the GET request; `None` to check only that a connection is accepted, or
            with `grpc`.
        interval: time between checks.
        timeout: time limit of one check; `None` for the default of `effective_timeout`.
        fall: failures in a row after which a server is down.
        rise: successes in a row after which it is up again.
        status: the first and the last status that is a success.
        grpc: name of the service to check by `grpc.health.v1`, empty for the server as a whole;
            `None` for no gRPC.
    """

    path: str | None = DEFAULT_CHECK_PATH
    interval: float = 10.0
    timeout: float | None = None
    fall: int = 2
    rise: int = 2
    status: tuple[int, int] = (200, 299)
    grpc: str | None = None

    @property
    def effective_timeout(self) -> float:
        """Time limit of one check: `timeout`, or half the interval but at most 2 s."""
        return min(2.0, self.interval / 2) if self.timeout is None else self.timeout
