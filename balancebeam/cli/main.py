"""Console script `balancebeam`: an operator command, or `twistd -n balancebeam`."""

from __future__ import annotations

import sys

from balancebeam.cli.arguments import is_command


def main() -> None:
    """Run the operator command on the command line, or the balancer in the foreground."""
    if is_command(sys.argv[1:]):
        # Imported here, like twistd below: neither needs the modules of the other.
        from balancebeam.cli.run import run as run_command

        raise SystemExit(run_command(sys.argv[1:]))
    from twisted.scripts.twistd import run

    # A foreground process needs no pid file, and two processes in one directory would
    # use the same twistd.pid.
    sys.argv[1:1] = ["--nodaemon", "--pidfile=", "balancebeam"]
    run()
