"""Balancer processes with a configuration file, for tests of signals and reloads."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.helpers.http_client import responds
from tests.helpers.processes import BALANCEBEAM, TIMEOUT, TWISTD, wait_until

# Each way to start a balancer; the second one writes a PID file.
COMMANDS = (
    (TWISTD, "-n", "--pidfile=", "balancebeam"),
    (TWISTD, "-n", "balancebeam"),
    (BALANCEBEAM,),
    (sys.executable, "-m", "balancebeam"),
)


class ConfiguredBalancer:
    """
    A balancer in a session of its own, with a configuration file.

    Attributes:
        folder: working directory of the process.
        config: its configuration file.
        log: file with its stdout and stderr.
        process: the process.
    """

    def __init__(
        self,
        folder: Path,
        text: str,
        argv: Sequence[str] = COMMANDS[0],
        environment: dict[str, str] | None = None,
        fds: Sequence[int] = (),
        shell: str = "",
    ) -> None:
        """
        Start the balancer; it need not be ready yet.

        Args:
            folder: working directory.
            text: content of the configuration file.
            argv: program and arguments, without the option for the file.
            environment: variables in addition to the environment of the tests.
            fds: file descriptors that the process inherits.
            shell: shell commands to run in the process before the program is executed.
        """
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(text)
        self.log = folder / "output.txt"
        command = [*argv, "--config", str(self.config)]
        if shell:
            command = ["/bin/bash", "-c", shell + ' exec "$@"', "sh", *command]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                pass_fds=fds,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def has_logged(self, text: str, times: int = 1) -> bool:
        """Return whether the log contains `text` at least `times` times."""
        return self.log.read_text().count(text) >= times

    def wait(self) -> int:
        """Wait until the process has exited; return its exit status."""
        return self.process.wait(TIMEOUT)

    def status(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        return self.process.poll()

    def children(self) -> list[int]:
        """Return the process ids of the child processes."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def kill(self) -> None:
        """Kill every process of the session, new processes of hot restarts included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(TIMEOUT)


@contextlib.contextmanager
def run_configured_balancer(
    folder: Path, text: str, *addresses: int | str, **arguments: object
) -> Iterator[ConfiguredBalancer]:
    """
    Run a balancer; assert that it has logged no traceback.

    Args:
        folder: working directory.
        text: content of the configuration file.
        addresses: TCP ports and paths of Unix sockets that must respond before the test begins.
        arguments: further arguments of `ConfiguredBalancer`.
    """
    balancer = ConfiguredBalancer(folder, text, **arguments)  # type: ignore[arg-type]
    try:
        for address in addresses:
            wait_until(partial(_responds_or_exited, balancer, address))
        assert balancer.status() is None, balancer.log.read_text()
        yield balancer
    finally:
        balancer.kill()
    assert "Traceback" not in balancer.log.read_text(), balancer.log.read_text()


def _responds_or_exited(balancer: ConfiguredBalancer, address: int | str) -> bool:
    """Return whether `address` responds, or the process has exited."""
    return responds(address) or balancer.status() is not None


def config(server: str, *binds: str, before: str = "", after: str = "") -> str:
    """
    Return a configuration file with the frontend "web" and the pool "app".

    Args:
        server: address of the only server.
        binds: addresses that the frontend listens on.
        before: TOML before these tables.
        after: TOML after these tables.
    """
    quoted = ", ".join(f'"{bind}"' for bind in binds)
    return (
        f'{before}\n[[frontend]]\nname = "web"\nbind = [{quoted}]\npool = "app"\n'
        f'[[pool]]\nname = "app"\nupstreams = ["{server}"]\n{after}\n'
    )
