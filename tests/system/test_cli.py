"""Commands of the command-line interface against real balancers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import (
    BALANCEBEAM,
    TIMEOUT,
    TWISTD,
    BalancerProcess,
    ScriptedServer,
    free_port,
    read_head,
    respond_with,
    run_balancer,
    wait_until,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variables that name an admin listener and its token."""
    for name in ("BALANCEBEAM_ADMIN", "BALANCEBEAM_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def command(*arguments: str, status: int = 0, **environment: str) -> str:
    """
    Run `balancebeam` with these arguments and assert on its exit status.

    Args:
        arguments: command-line arguments.
        status: expected exit status.
        environment: variables in addition to the environment of the tests.

    Returns:
        Its stdout if the status is 0, else its stderr. The other stream must be empty.
    """
    completed = subprocess.run(
        [BALANCEBEAM, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **environment},
    )
    assert completed.returncode == status, completed
    assert "Traceback" not in completed.stderr
    if status:
        assert completed.stdout == ""
        return completed.stderr
    assert completed.stderr == ""
    return completed.stdout


def servers_by_address(admin: str) -> dict[str, Any]:
    """Return the servers that `status --json` reports, by address."""
    servers = json.loads(command("status", "--json", "--admin", admin))
    return {server["address"]: server for server in servers}


def test_commands_over_tcp(tmp_path: Path) -> None:
    """Every command works with an admin listener on TCP, and reports rejections with status 1."""
    admin = f"127.0.0.1:{free_port()}"
    with ScriptedServer(respond_with("a")) as first, ScriptedServer(respond_with("b")) as second:
        with run_balancer(tmp_path, "--upstream", first.address, "--admin", admin):
            heading, row = command("status", "--admin", admin).splitlines()
            assert heading.split()[:3] == ["POOL", "SERVER", "STATE"]
            assert row.split()[1:3] == [first.address, "up"]

            output = command("weight", first.address, "7", BALANCEBEAM_ADMIN=admin)
            assert output == f"{first.address}: up, weight 7, 0 in flight\n"
            output = command("--admin", admin, "drain", f"http://{first.address}/", "--wait")
            assert output == f"{first.address}: draining, weight 7, 0 in flight\n"
            output = command("maintenance", first.address, "--admin", f"http://{admin}")
            assert output.startswith(f"{first.address}: maintenance")
            output = command("ready", first.address, "--admin", admin)
            assert output == f"{first.address}: up, weight 7, 0 in flight\n"

            output = command("register", second.address, "--weight", "3", "--admin", admin)
            assert output == f"{second.address}: registered, weight 3\n"
            assert servers_by_address(admin)[second.address]["weight"] == 3
            pool = servers_by_address(admin)[second.address]["pool"]
            command("register", second.address, "--pool", pool, "--admin", admin)
            assert servers_by_address(admin)[second.address]["weight"] == 1
            assert (
                command("remove", second.address, "--admin", admin)
                == f"{second.address}: removed\n"
            )
            assert list(servers_by_address(admin)) == [first.address]

            assert f'"{first.address}"' in command("config", "--admin", admin)
            assert command("reload", "--admin", admin) == "nothing has changed\n"

            url = "http://example.org/a?b=1&c=2"
            output = command("explain", "GET", url, "--client", "192.0.2.7", "--admin", admin)
            assert output.startswith("frontend: web\nroute:    default\n")
            assert output.splitlines()[-1].split()[0] == first.address
            output = command("explain", "GET", url, "--client", "x", "--admin", admin, status=1)
            assert output == "balancebeam: invalid client 'x': expected an IP address\n"

            # Rejected commands.
            output = command("weight", first.address, "900", "--admin", admin, status=1)
            assert output == "balancebeam: invalid weight 900: expected an integer from 0 to 256\n"
            output = command("status", "--pool", "q/\u00e4", "--admin", admin, status=1)
            assert output.startswith("balancebeam: unknown pool 'q/\u00e4'")
            output = command("drain", "10.0.0.1:80", "--pool", pool, "--admin", admin, status=1)
            assert output == f"balancebeam: pool {pool} has no server 10.0.0.1:80\n"
            dead = f"127.0.0.1:{free_port()}"
            output = command("register", dead, "--admin", admin, status=1)
            assert output.startswith("balancebeam: GET /health failed: could not be reached: ")
            assert output.endswith(f": {dead} not alive, registration failed.\n")
        assert "nothing listens" in command("status", "--admin", admin, status=3)


def test_unix_socket_and_token(tmp_path: Path) -> None:
    """Commands work with an admin listener on a Unix socket, and authenticate with its token."""
    admin, token, wrong = f"unix:{tmp_path}/admin", tmp_path / "token", tmp_path / "wrong"
    token.write_text("sesame\n")
    wrong.write_text("pumpkin\n")
    server = f"unix:{tmp_path}/server"
    options = ("--upstream", server, "--admin", admin, "--admin-token-file", str(token))
    with run_balancer(tmp_path, *options):
        output = command("drain", server, "--admin", admin, "--token-file", str(token))
        assert output == f"{server}: draining, weight 1, 0 in flight\n"
        environment: Any = {"BALANCEBEAM_ADMIN": admin, "BALANCEBEAM_TOKEN": "sesame"}
        assert server in command("status", **environment)
        assert "sesame" not in command("config", **environment)
        output = command("status", "--admin", admin, status=1)
        assert output.startswith("balancebeam: authentication required; give it by --token-file")
        output = command("config", "--token-file", str(wrong), status=1, **environment)
        assert (
            output == "balancebeam: authentication required, and the one that was given is wrong\n"
        )


def test_token_over_tcp(tmp_path: Path) -> None:
    """Commands over TCP authenticate with the token of a file."""
    token = tmp_path / "token"
    token.write_text("sesame")
    port = free_port()
    options = ("--demo", "1", "--admin", f"0.0.0.0:{port}", "--admin-token-file", str(token))
    with run_balancer(tmp_path, *options):
        admin = ("--admin", f"127.0.0.1:{port}")
        assert "up" in command("status", *admin, "--token-file", str(token))
        assert "authentication required" in command("status", *admin, status=1)


def test_address_of_another_listener(tmp_path: Path) -> None:
    """A command to a listener that is not an admin listener fails with status 3."""
    with run_balancer(tmp_path, "--demo", "1") as running:
        output = command("status", "--admin", f"127.0.0.1:{running.port}", status=3)
    assert "does not answer as the admin listener of a balancebeam does" in output


CONFIG = """\
[admin]
bind = "{admin}"

[[frontend]]
bind = "127.0.0.1:{port}"
pool = "a"

[[pool]]
name = "a"
upstreams = ["10.0.0.1:80"]

[[pool]]
name = "b"
upstreams = ["10.0.0.1:80"]
"""


def test_pools_and_reload(tmp_path: Path) -> None:
    """Ambiguous servers need --pool; reload reports changes, or every error of the file."""
    admin = f"127.0.0.1:{free_port()}"
    path = tmp_path / "lb.toml"
    text = CONFIG.format(admin=admin, port=free_port())
    path.write_text(text)
    running = BalancerProcess(tmp_path, "--config", str(path))
    try:
        output = command("drain", "10.0.0.1:80", "--admin", admin, status=2)
        assert output == "balancebeam: several pools have 10.0.0.1:80; give --pool a or b\n"
        output = command("drain", "10.0.0.1:80", "--pool", "b", "--admin", admin)
        assert output.startswith("10.0.0.1:80: draining")
        servers = json.loads(command("status", "--json", "--admin", admin))
        states = {server["pool"]: server["state"] for server in servers}
        assert states == {"a": "up", "b": "draining"}

        path.write_text(text.replace("10.0.0.1:80", "10.0.0.2:80"))
        assert "10.0.0.2:80" in command("reload", "--admin", admin)
        path.write_text(text.replace('pool = "a"', 'pool = "c"\nspeed = 5', 1) + "colour = 1\n")
        lines = command("reload", "--admin", admin, status=1).splitlines()
        assert len(lines) > 1
        assert all(line.startswith("balancebeam: ") for line in lines)
    finally:
        running.stop()
    # The rejected reload is logged as an error, which `run_balancer` would not allow.
    assert "Traceback" not in running.output.read_text()


def test_wait_for_requests_in_flight(tmp_path: Path) -> None:
    """`drain --wait` times out, and `remove --wait` returns after the last request in flight."""
    release = threading.Event()

    def serve(connection: Any, number: int) -> None:
        """Respond when `release` is set."""
        read_head(connection)
        assert release.wait(TIMEOUT)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    admin = f"127.0.0.1:{free_port()}"
    with ScriptedServer(serve) as server:
        with run_balancer(tmp_path, "--upstream", server.address, "--admin", admin) as running:
            client = running.connect()
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(lambda: server.connections)
            output = command("drain", server.address, "--wait", "0.1", "--admin", admin, status=1)
            assert output == (
                f"balancebeam: {server.address} still has 1 in flight after 0.1 seconds\n"
            )
            removed: list[str] = []
            arguments = ("remove", "--wait", server.address, "--admin", admin)
            thread = threading.Thread(target=lambda: removed.append(command(*arguments)))
            thread.start()
            wait_until(lambda: "removed" in servers_by_address(admin)[server.address]["reason"])
            assert thread.is_alive()
            release.set()
            thread.join(TIMEOUT)
            assert removed == [f"{server.address}: removed\n"]
            assert read_head(client)[0].startswith(b"HTTP/1.1 200 ")
            client.close()


def test_help_lists_commands() -> None:
    """--help of the program and of twistd lists options and commands."""
    for program in ([sys.executable, "-m", "balancebeam"], [TWISTD, "-n", "balancebeam"]):
        completed = subprocess.run(
            [*program, "--help"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        text = " ".join(completed.stdout.split())
        assert "--upstream=" in text
        assert "status, top, drain, maintenance, ready, weight, register, remove, reload" in text
