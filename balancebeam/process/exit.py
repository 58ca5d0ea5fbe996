"""
Exit of the process when its configuration is invalid: status 1, one line per error.

`ConfigError` is an ordinary exception, as an application that embeds the
balancer needs it. Under `twistd` it becomes a `StartupExit`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from balancebeam.core.errors import ConfigError


class StartupExit(SystemExit, Exception):
    """
    The program cannot start; its text names every problem, one per line.

    As a `SystemExit` it prints the lines without a traceback, and the exit
    status is 1. As an `Exception` it makes `twistd` remove its pid file and
    report the failure to the parent process of a daemon: that report has the
    qualified name of this class before the text and is cut at 100 bytes, so
    the name has to be short.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


@contextmanager
def exit_on_config_error(stderr_redirected: bool = False) -> Iterator[None]:
    """
    Turn a `ConfigError` into a `StartupExit`.

    Args:
        stderr_redirected: whether `twistd` has started its log, so that the
            original stderr is needed for the message.
    """
    try:
        yield
    except ConfigError as error:
        if stderr_redirected:
            restore_stderr()
        raise StartupExit(
            "\n".join(f"balancebeam: {problem}" for problem in error.problems)
        ) from None


def restore_stderr() -> None:
    """
    Restore the original stderr, unless daemonized, so that the fatal error is
    printed verbatim: `twistd` has redirected stderr to its log.
    """
    # A daemon has /dev/null as descriptor 2, and its log is the right place.
    if sys.__stderr__ is not None and os.fstat(2).st_rdev != os.stat(os.devnull).st_rdev:
        sys.stderr = sys.__stderr__
