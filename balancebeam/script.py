"""The console script `balancebeam`: `twistd -n balancebeam` in one word."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the balancer in the foreground with the options of the command line."""
    from twisted.scripts.twistd import run

    # A program in the foreground has no use for a pid file, and two of them
    # in one directory would fight for it.
    sys.argv[1:1] = ["--nodaemon", "--pidfile=", "balancebeam"]
    run()
