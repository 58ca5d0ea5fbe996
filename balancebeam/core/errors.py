"""What can go wrong, in the words that every room shares."""

from __future__ import annotations

from collections.abc import Iterable


class StartupError(SystemExit, Exception):
    """
    The program cannot start; the text says why, one line a mistake.

    It is a `SystemExit`, so that a person sees the lines alone and the status
    is 1, and an `Exception`, so that `twistd` removes its pid file and tells
    the process that waits for the daemon.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @classmethod
    def from_problems(cls, problems: Iterable[str]) -> StartupError:
        """The error that names all of `problems`."""
        return cls("\n".join(f"balancebeam: {problem}" for problem in problems))

    @property
    def problems(self) -> list[str]:
        """The mistakes alone."""
        return [line.removeprefix("balancebeam: ") for line in self.text.splitlines()]

    def __str__(self) -> str:
        return self.text


class RequestError(Exception):
    """A request that is not passed on; `status` and `reason` are the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class ResponseError(Exception):
    """Bytes from a server that cannot be read as exactly one response."""


def describe_os_error(error: BaseException) -> str:
    """Return the operating system's text for `error` in lower case, to follow a colon."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"
