"""The console script `balancebeam`: `twistd -n balancebeam` in one word, and the operator's."""

from __future__ import annotations

import sys

from balancebeam.cli.arguments import is_command


def main() -> None:
    """Do one of the operator's commands, or run the balancer in the foreground."""
    if is_command(sys.argv[1:]):
        # Imported here, as what follows is: neither is needed for the other.
        from balancebeam.cli.run import run as run_command

        raise SystemExit(run_command(sys.argv[1:]))
    from twisted.scripts.twistd import run

    # A program in the foreground has no use for a pid file, and two of them
    # in one directory would fight for it.
    sys.argv[1:1] = ["--nodaemon", "--pidfile=", "balancebeam"]
    run()
