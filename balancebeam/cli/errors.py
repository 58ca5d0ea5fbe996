"""Errors that end an operator command, with the exit status of each."""

from __future__ import annotations


class CommandError(Exception):
    """
    A command failed.

    Attributes:
        text: the message; one line for each problem.
        status: exit status of the program.
    """

    status = 1

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class RequestRejected(CommandError):
    """The admin API rejected the request, or its effect was not achieved in time."""


class UsageError(CommandError):
    """The command line, the environment or a file that they name is invalid."""

    status = 2


class ConnectionFailed(CommandError):
    """The admin listener cannot be reached, or sent an unexpected response."""

    status = 3


def describe_os_error(error: Exception) -> str:
    """Return the reason of an operating system error without number and file name."""
    # The reason is missing where Python itself raises OSError ("AF_UNIX path too long").
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
