"""Exceptions of several packages, and texts of operating system errors."""

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


class ProtocolError(Exception):
    """A message that violates its protocol, or that the proxy does not support."""


class RequestError(ProtocolError):
    """
    A request that is rejected.

    Attributes:
        status: status of the response to the client.
        reason: text of that response.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class ResponseError(ProtocolError):
    """Bytes from a server that cannot be read as exactly one response."""


def describe_os_error(error: BaseException) -> str:
    """Return the operating system's text for `error` in lower case, to follow a colon."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"
