"""The files in `docs/examples`, used as their comments say."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.documentation import DOCS
from tests.helpers.memory import GET, MemoryBalancer
from tests.helpers.processes import (
    TIMEOUT,
    TWISTD,
    ScriptedServer,
    free_port,
    respond_with,
    run_balancer,
    wait_until,
)

EXAMPLES = DOCS / "examples"
BALANCEBEAM = str(Path(sys.executable).with_name("balancebeam"))


def adapted(name: str, folder: Path, changes: Mapping[str, str]) -> Path:
    """A copy of an example in which addresses and folders are replaced."""
    text = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def site_changes(folder: Path) -> dict[str, str]:
    """What `site.toml` needs to run without root's folders."""
    (folder / "token").write_text("a-secret-token\n")
    return {
        "/var/lib/balancebeam": str(folder),
        "/var/log/balancebeam": str(folder),
        "/etc/balancebeam/token": str(folder / "token"),
    }


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str]:
    """Status and body of the response to a GET request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def responds(port: int) -> bool:
    """Whether an HTTP server listens there."""
    with contextlib.suppress(OSError):
        return get(port)[0] > 0
    return False


@contextlib.contextmanager
def running(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that must end well when it is interrupted, and must have logged no error."""
    output = folder / "output.txt"
    with open(output, "wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                status = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
    text = output.read_text()
    # twistd ends itself with the signal that it got, after it has stopped its services.
    assert status in (0, -signal.SIGINT), text
    assert "Traceback" not in text, text


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_configuration_files_are_valid(name: str, tmp_path: Path) -> None:
    """Every TOML example passes --check, and what that prints passes it too."""
    changes = site_changes(tmp_path) if name == "site.toml" else {}
    first = subprocess.run(
        [BALANCEBEAM, "-c", adapted(name, tmp_path, changes), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert first.returncode == 0, first.stderr
    printed = tmp_path / "printed.toml"
    printed.write_text(first.stdout)
    second = subprocess.run(
        [BALANCEBEAM, "-c", printed, "--check"], capture_output=True, text=True, check=False
    )
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr


def test_site(tmp_path: Path) -> None:
    """The site routes by host and path, and writes a log with the documented keys."""
    admin = free_port()
    with ScriptedServer(respond_with("pages")) as pages, ScriptedServer(respond_with("api")) as api:
        changes = {
            **site_changes(tmp_path),
            '"10.0.0.1:8080"': f'"{pages.address}"',
            '"10.0.1.1:9090"': f'"{api.address}"',
            "127.0.0.1:1101": f"127.0.0.1:{admin}",
            # The other servers do not exist.
            '{address = "10.0.0.2:8080", weight = 2},': "",
            '{address = "10.0.0.9:8080", backup = true},': "",
            '{address = "10.0.1.2:9090", max_in_flight = 100},': "",
        }
        path = adapted("site.toml", tmp_path, changes)
        with run_balancer(tmp_path, "-c", str(path)) as balancer:
            assert get(balancer.port) == (200, "pages")
            assert get(balancer.port, "/v1/x", Host="api.example.org") == (200, "api")
            assert get(balancer.port, "/v2", Host="api.example.org") == (200, "pages")
            assert get(admin, "/readyz")[0] == 401
            assert get(admin, "/readyz", Authorization="Bearer a-secret-token")[0] == 200
            with balancer.connect() as client:
                client.sendall(b"GET  / HTTP/1.1\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 200, 200, 400]
    documented = (DOCS / "operations.rst").read_text()
    for line in lines:
        for key in line:
            assert f"``{key}``" in documented, key


def test_tac(tmp_path: Path) -> None:
    """The application file balances over its servers, and has an admin listener."""
    port, admin = free_port(), free_port()
    with ScriptedServer(respond_with("one")) as one, ScriptedServer(respond_with("two")) as two:
        changes = {
            'TcpAddress("10.0.0.1", 8080)': f'TcpAddress("127.0.0.1", {one.port})',
            'TcpAddress("10.0.0.2", 8080)': f'TcpAddress("127.0.0.1", {two.port})',
            "8000": str(port),
            "1101": str(admin),
        }
        path = adapted("balancebeam.tac", tmp_path, changes)
        with running(tmp_path, TWISTD, "--pidfile=", "-noy", str(path)):
            wait_until(lambda: responds(port))
            assert {get(port)[1] for _ in range(8)} == {"one", "two"}
            assert get(admin, "/healthz")[0] == 200


def test_application(tmp_path: Path) -> None:
    """The application serves its own resource, and balances what is below /app."""
    port = free_port()
    with ScriptedServer(respond_with("one")) as one, ScriptedServer(respond_with("two")) as two:
        changes = {"8081": str(one.port), "8082": str(two.port), "tcp:8000": f"tcp:{port}"}
        path = adapted("application.py", tmp_path, changes)
        with running(tmp_path, sys.executable, str(path)):
            wait_until(lambda: responds(port))
            assert get(port) == (200, "Hello from the application.\n")
            assert {get(port, "/app/x")[1] for _ in range(8)} == {"one", "two"}


def _unit(name: str) -> Any:
    """The sections of a systemd unit, in which no key occurs twice."""
    parser: Any = configparser.RawConfigParser(strict=True)
    parser.optionxform = str
    parser.read_string((EXAMPLES / name).read_text())
    return parser


def test_units() -> None:
    """The units can be parsed, and fit each other and the documentation."""
    service, listener = _unit("balancebeam.service"), _unit("balancebeam.socket")
    assert service["Service"]["Type"] == "notify-reload"
    assert service["Service"]["NotifyAccess"] == "all"
    command = service["Service"]["ExecStart"].split()
    assert Path(command[0]).name == "balancebeam"
    assert command[1:] == ["-c", "/etc/balancebeam/site.toml"]
    drain = "drain_timeout = 30"
    assert drain in (EXAMPLES / "site.toml").read_text()
    assert int(service["Service"]["TimeoutStopSec"]) > int(drain.rsplit(maxsplit=1)[-1])
    assert f'"{listener["Socket"]["ListenStream"]}"' in (EXAMPLES / "site.toml").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_units_are_verified(tmp_path: Path) -> None:
    """systemd finds no fault with the units."""
    service = adapted(
        "balancebeam.service", tmp_path, {"/opt/balancebeam/bin/balancebeam": BALANCEBEAM}
    )
    listener = adapted("balancebeam.socket", tmp_path, {})
    result = subprocess.run(
        ["systemd-analyze", "verify", str(service), str(listener)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    ours = [line for line in result.stderr.splitlines() if "balancebeam" in line]
    # Older versions of systemd do not know the type.
    assert [line for line in ours if "notify-reload" not in line] == []


def test_custom_algorithm() -> None:
    """The algorithm fills its servers in order, and a balancer can use it."""
    example = runpy.run_path(str(EXAMPLES / "custom_algorithm.py"))
    balancer = MemoryBalancer(servers=3)
    try:
        example["use_fill_first"](balancer.service, threshold=2)
        for _ in range(5):
            balancer.client().send(GET)
        loads = [server.in_flight for server in balancer.servers]
        assert loads == [2, 2, 1], loads
    finally:
        balancer.stop()
