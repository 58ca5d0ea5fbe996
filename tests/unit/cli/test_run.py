"""Output and exit status of operator commands, in this process and as a program."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from balancebeam.cli.run import run
from tests.helpers.processes import TIMEOUT
from tests.unit.cli.scripted_listener import response, scripted_listener, server_info, success

Capture = pytest.CaptureFixture[str]


def test_json(capsys: Capture) -> None:
    """`--json` prints printable ASCII that decodes to the data of the response."""
    servers = [server_info(reason="\x1b\x7f\u202e")]
    with scripted_listener(success(servers)) as server:
        assert run(["status", "--json", "--admin", f"http://{server.address}/"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == servers
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_config(capsys: Capture) -> None:
    """The configuration is printed unchanged but for control characters, if it is TOML."""
    text = 'a = "b"\n\n[c]\nd = "\x1b"\n'
    toml = response(text.encode(), content_type="application/toml; charset=utf-8")
    html = response(text.encode(), content_type="text/html")
    with scripted_listener(toml, toml, html) as server:
        assert run(["config", "--admin", server.address]) == 0
        assert capsys.readouterr().out == 'a = "b"\n\n[c]\nd = "\\u001b"\n'
        assert run(["config", "--json", "--admin", server.address]) == 0
        assert json.loads(capsys.readouterr().out) == {"config": text}
        assert run(["config", "--admin", server.address]) == 3


def test_deeply_nested_response(capsys: Capture) -> None:
    """A response that can be parsed but not printed again is no internal error."""
    nested: Any = []
    for _ in range(480):
        nested = [nested]
    body = b'{"status": "success", "data": %b}' % json.dumps([{"reason": nested}]).encode()
    with scripted_listener(response(body)) as server:
        assert run(["status", "--json", "--admin", server.address]) in (0, 3)


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program; `options` are passed to `subprocess.run`."""
    return subprocess.run(
        [sys.executable, "-m", "balancebeam", *arguments],
        capture_output="stdout" not in options,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **options,
    )


def test_only_the_standard_library_is_imported() -> None:
    """A command runs without site-packages, and imports none of the package's dependencies."""
    program = (
        "import sys; sys.path.insert(0, '.'); sys.argv[1:] = ['status', '--admin', 'unix:/none']\n"
        "from balancebeam.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 3, end.code\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "imported = roots & {'twisted', 'zope', 'attr', 'attrs'}\n"
        "assert not imported, imported\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-S", "-c", program], cwd=root, timeout=TIMEOUT, check=True)


def test_help() -> None:
    """The help of a command has its options and the exit statuses."""
    completed = command("drain", "--help")
    assert completed.returncode == 0
    assert "--wait [SECONDS]" in completed.stdout
    assert "exit status:" in completed.stdout


def test_invalid_usage() -> None:
    """Invalid arguments and addresses end the program with status 2."""
    completed = command("weight", "10.0.0.1:80", "many")
    assert completed.returncode == 2
    assert "invalid number 'many'" in completed.stderr
    assert command("status", "--admin", "nowhere").returncode == 2


def test_closed_pipe() -> None:
    """If the reader of a pipe has closed it, the command ends with status 0 and no message."""
    servers = success([server_info(reason="x" * 1000)] * 1000)
    with scripted_listener(servers) as server:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            completed = command(
                "status", "--admin", server.address, stdout=writing, stderr=subprocess.PIPE
            )
        finally:
            os.close(writing)
    assert (completed.returncode, completed.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_full_disk() -> None:
    """Output that cannot be written is an error with status 1."""
    with scripted_listener(success([])) as server, open("/dev/full", "w") as full:
        completed = command(
            "status", "--admin", server.address, stdout=full, stderr=subprocess.PIPE
        )
    assert completed.returncode == 1
    assert completed.stderr == (
        "balancebeam: cannot write to standard output: No space left on device\n"
    )


def test_characters_that_the_encoding_lacks() -> None:
    """Characters that the output's encoding lacks are escaped."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with scripted_listener(success([server_info(reason="größer")])) as server:
        completed = command("status", "--admin", server.address, env=environment)
    assert completed.returncode == 0
    assert "gr\\xf6\\xdfer" in completed.stdout


@pytest.mark.parametrize("no_color", ["", "1"])
def test_terminal(no_color: str) -> None:
    """A terminal gets colors, unless NO_COLOR is set, and lines of its width."""
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "80"}
    controller, terminal = pty.openpty()
    try:
        with scripted_listener(success([server_info(reason="x" * 60)])) as server:
            completed = command(
                "status",
                "--admin",
                server.address,
                stdout=terminal,
                stderr=subprocess.PIPE,
                env=environment,
            )
        output = os.read(controller, 65536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert ("\x1b[32mup\x1b[0m" in output) == (not no_color)
    assert "    " + "x" * 60 in output.replace("\r", "").splitlines()
