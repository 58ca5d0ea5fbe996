"""What can go wrong, in the words that every room shares."""

from __future__ import annotations


class ConfigError(Exception):
    """
    The configuration is invalid, or an address or a file that it names is not available.

    Raised when the configuration is read, when listeners are bound and by reloads.

    Attributes:
        problems: one message for each mistake, a line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RequestError(Exception):
    """A request that is not passed on; `status` and `reason` are the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class ResponseError(Exception):
    """Bytes from a server that cannot be read as exactly one response."""
