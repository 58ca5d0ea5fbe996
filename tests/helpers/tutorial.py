"""
`python -m tests.helpers.tutorial`: run the commands of `docs/tutorial.rst`, and put their
output into the page.

In literal blocks, lines that begin with "$" are commands, and the lines below are their
output. Comments of the page say how to treat the next block:

    .. run: skip                    do not run it
    .. run: background NAME ...     its last commands keep running, under these names
    .. run: write FILE              it is the content of a file
    .. run: append FILE             it is added to a file
    .. run: stop NAME               end a process (SIGINT)
    .. run: wait SECONDS            wait

The ports of the tutorial have to be free.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.documentation import DOCS
from tests.helpers.processes import TIMEOUT, wait_until

PAGE = DOCS / "tutorial.rst"
PORTS = (1100, 1101, 8000, 8081, 8082)

_DIRECTIVE = re.compile(r"^\.\. run: (?P<verb>\w+) ?(?P<arguments>.*)$")
_PROMPT = "    $ "
_PORT = re.compile(r"\b(1100|8000|8081|8082)\b")

# What differs from run to run: times, and how long to wait.
_VARIABLE = re.compile(r"(?<=Date: ).+|(?<=Retry-After: )\d+|(?<=;t=)\d+|\b\d+s ago\b|\bnow\b")


def normalized(page: str) -> str:
    """The page without what differs from run to run, and the width of columns."""
    return re.sub(" +", " ", _VARIABLE.sub("*", page))


def ports_are_free() -> bool:
    """Whether the tutorial can run here and now."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


class Tutorial:
    """
    One run through the page.

    Args:
        folder: the working directory of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._verb = ""
        self._arguments: list[str] = []
        # curl shows its progress where the output is no terminal.
        (folder / ".curlrc").write_text("silent\n")
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        self._environment = {**os.environ, "PATH": path, "CURL_HOME": str(folder)}

    def run(self, page: str) -> str:
        """Run all commands; the page with their output."""
        lines: list[str] = []
        try:
            for block in self._blocks(page.splitlines()):
                lines += self._do(block)
        finally:
            for name in list(self._processes):
                self._stop(name)
        return "\n".join(lines) + "\n"

    def _blocks(self, lines: list[str]) -> Iterator[list[str]]:
        """Indented blocks, and all other lines one by one."""
        block: list[str] = []
        for line in [*lines, "."]:
            if line.startswith("   ") or (block and not line):
                block.append(line)
                continue
            if block:
                blank = len(block)
                while not block[blank - 1]:
                    blank -= 1
                yield block[:blank]
                yield from ([line] for line in block[blank:])
            block = []
            if line != ".":
                yield [line]

    def _do(self, block: list[str]) -> list[str]:
        directive = _DIRECTIVE.match(block[0])
        if directive is not None:
            self._verb, self._arguments = directive["verb"], directive["arguments"].split()
            if self._verb == "stop":
                self._stop(self._arguments[0])
            elif self._verb == "wait":
                time.sleep(float(self._arguments[0]))
            return block
        if not block[0].startswith("   "):
            return block
        verb, self._verb = self._verb, ""
        if verb == "skip":
            return block
        if verb in ("write", "append"):
            text = "".join(f"{line[3:]}\n" for line in block)
            with open(self._folder / self._arguments[0], "w" if verb == "write" else "a") as file:
                file.write(text)
            return block
        if block[0].startswith(_PROMPT):
            return self._run_commands(block, self._arguments if verb == "background" else [])
        return block

    def _run_commands(self, block: list[str], background: list[str]) -> list[str]:
        commands = [line for line in block if line.startswith(_PROMPT)]
        foreground = len(commands) - len(background)
        lines = []
        for number, command in enumerate(commands):
            lines.append(command)
            text = command[len(_PROMPT) :]
            if number >= foreground:
                self._start(background[number - foreground], text.rstrip("& "))
            else:
                lines += [f"    {line}".rstrip() for line in self._output(text)]
        return lines

    def _output(self, command: str) -> list[str]:
        result = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
        return result.stdout.decode().rstrip().splitlines()

    def _start(self, name: str, command: str) -> None:
        log = open(self._folder / f"{name}.log", "ab")  # noqa: SIM115
        self._processes[name] = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self._folder,
            env=self._environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        # The last port of a command is that of its listener, but for --upstream.
        ports = _PORT.findall(command.partition(" --upstream")[0]) or ["8000"]
        port = 1100 if "--demo" in command else int(ports[-1])
        wait_until(lambda: _accepts(port))

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal.SIGINT)
        status = process.wait(TIMEOUT)
        if name == "balancer":
            assert status == 0, status


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Replace the output in the page by what the commands print today."""
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(Tutorial(Path(folder)).run(PAGE.read_text()))


if __name__ == "__main__":
    main()
