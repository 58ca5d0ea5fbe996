"""What ends a command before it is done. The text has one line a mistake."""

from __future__ import annotations


class CommandError(Exception):
    """A command that could not be done; `status` is the program's."""

    status = 1

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class RequestRejected(CommandError):
    """The balancer does not do that, or it did not come about."""


class UsageError(CommandError):
    """The command line or a file it names is wrong."""

    status = 2


class ConnectionFailed(CommandError):
    """There is no balancer, or it cannot be understood."""

    status = 3
