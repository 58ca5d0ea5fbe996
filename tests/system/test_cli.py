"""The operator's commands against the real program."""

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
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BALANCEBEAM_ADMIN", "BALANCEBEAM_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def command(*arguments: str, status: int = 0, **environment: str) -> str:
    """What it says: on stdout if it is done, on stderr if not."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("balancebeam")), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    silent = done.stdout if status else done.stderr
    assert silent == ""
    return done.stderr if status else done.stdout


def listed(admin: str) -> dict[str, Any]:
    """The servers by address."""
    servers = json.loads(command("status", "--json", "--admin", admin))
    return {server["address"]: server for server in servers}


def test_over_tcp(tmp_path: Path) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with ScriptedServer(respond_with("a")) as one, ScriptedServer(respond_with("b")) as two:
        with run_balancer(tmp_path, "--upstream", one.address, "--admin", admin):
            heading, row = command("status", "--admin", admin).splitlines()
            assert heading.split()[:3] == ["POOL", "SERVER", "STATE"]
            assert row.split()[1:3] == [one.address, "up"]

            said = command("weight", one.address, "7", BALANCEBEAM_ADMIN=admin)
            assert said == f"{one.address}: up, weight 7, 0 in flight\n"
            said = command("--admin", admin, "drain", f"http://{one.address}/", "--wait")
            assert said == f"{one.address}: draining, weight 7, 0 in flight\n"
            said = command("maintenance", one.address, "--admin", f"http://{admin}")
            assert said.startswith(f"{one.address}: maintenance")
            said = command("ready", one.address, "--admin", admin)
            assert said == f"{one.address}: up, weight 7, 0 in flight\n"

            said = command("register", two.address, "--weight", "3", "--admin", admin)
            assert said == f"{two.address}: registered, weight 3\n"
            assert listed(admin)[two.address]["weight"] == 3
            pool = listed(admin)[two.address]["pool"]
            command("register", two.address, "--pool", pool, "--admin", admin)
            assert listed(admin)[two.address]["weight"] == 1
            assert command("remove", two.address, "--admin", admin) == f"{two.address}: removed\n"
            assert list(listed(admin)) == [one.address]

            assert f'"{one.address}"' in command("config", "--admin", admin)
            assert command("reload", "--admin", admin) == "nothing has changed\n"

            # What is not granted.
            said = command("weight", one.address, "900", "--admin", admin, status=1)
            assert said == "balancebeam: invalid weight 900: expected an integer from 0 to 256\n"
            said = command("status", "--pool", "q/\u00e4", "--admin", admin, status=1)
            assert said.startswith("balancebeam: unknown pool 'q/\u00e4'")
            said = command("drain", "10.0.0.1:80", "--pool", pool, "--admin", admin, status=1)
            assert said == f"balancebeam: pool {pool} has no server 10.0.0.1:80\n"
            dead = f"127.0.0.1:{free_port()}"
            said = command("register", dead, "--admin", admin, status=1)
            assert said.startswith("balancebeam: GET /health failed: Connection was refused")
            assert said.endswith(f": {dead} not alive, registration failed.\n")
        assert "nothing listens" in command("status", "--admin", admin, status=3)


def test_over_a_unix_socket_with_a_token(tmp_path: Path) -> None:
    admin, token, wrong = f"unix:{tmp_path}/admin", tmp_path / "token", tmp_path / "wrong"
    token.write_text("sesame\n")
    wrong.write_text("pumpkin\n")
    server = f"unix:{tmp_path}/server"
    options = ("--upstream", server, "--admin", admin, "--admin-token-file", str(token))
    with run_balancer(tmp_path, *options):
        said = command("drain", server, "--admin", admin, "--token-file", str(token))
        assert said == f"{server}: draining, weight 1, 0 in flight\n"
        environment: Any = {"BALANCEBEAM_ADMIN": admin, "BALANCEBEAM_TOKEN": "sesame"}
        assert server in command("status", **environment)
        assert "sesame" not in command("config", **environment)
        said = command("status", "--admin", admin, status=1)
        assert said.startswith("balancebeam: authentication required; give it by --token-file")
        said = command("config", "--token-file", str(wrong), status=1, **environment)
        assert said == "balancebeam: authentication required, and the one that was given is wrong\n"


def test_a_token_over_tcp(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame")
    port = free_port()
    options = ("--demo", "1", "--admin", f"0.0.0.0:{port}", "--admin-token-file", str(token))
    with run_balancer(tmp_path, *options):
        admin = ("--admin", f"127.0.0.1:{port}")
        assert "up" in command("status", *admin, "--token-file", str(token))
        assert "authentication required" in command("status", *admin, status=1)


def test_not_the_admin_listener(tmp_path: Path) -> None:
    with run_balancer(tmp_path, "--demo", "1") as running:
        said = command("status", "--admin", f"127.0.0.1:{running.port}", status=3)
    assert "does not answer as the admin listener of a balancebeam does" in said


FILE = """\
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


def test_reloading_and_several_pools(tmp_path: Path) -> None:
    admin = f"127.0.0.1:{free_port()}"
    file = tmp_path / "lb.toml"
    text = FILE.format(admin=admin, port=free_port())
    file.write_text(text)
    running = BalancerProcess(tmp_path, "--config", str(file))
    try:
        said = command("drain", "10.0.0.1:80", "--admin", admin, status=2)
        assert said == "balancebeam: several pools have 10.0.0.1:80; give --pool a or b\n"
        said = command("drain", "10.0.0.1:80", "--pool", "b", "--admin", admin)
        assert said.startswith("10.0.0.1:80: draining")
        servers = json.loads(command("status", "--json", "--admin", admin))
        assert {one["pool"]: one["state"] for one in servers} == {"a": "up", "b": "draining"}

        file.write_text(text.replace("10.0.0.1:80", "10.0.0.2:80"))
        assert "10.0.0.2:80" in command("reload", "--admin", admin)
        file.write_text(text.replace('pool = "a"', 'pool = "c"\nspeed = 5', 1) + "colour = 1\n")
        lines = command("reload", "--admin", admin, status=1).splitlines()
        assert len(lines) > 1
        assert all(line.startswith("balancebeam: ") for line in lines)
    finally:
        running.stop()
    # A refused reload is an error in the log too.
    assert "Traceback" not in running.output.read_text()


def test_waiting_for_what_is_in_flight(tmp_path: Path) -> None:
    release = threading.Event()

    def serve(connection: Any, number: int) -> None:
        read_head(connection)
        assert release.wait(TIMEOUT)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    admin = f"127.0.0.1:{free_port()}"
    with ScriptedServer(serve) as server:
        with run_balancer(tmp_path, "--upstream", server.address, "--admin", admin) as running:
            client = running.connect()
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(lambda: server.connections)
            said = command("drain", server.address, "--wait", "0.1", "--admin", admin, status=1)
            assert said == (
                f"balancebeam: {server.address} still has 1 in flight after 0.1 seconds\n"
            )
            removed: list[str] = []
            arguments = ("remove", "--wait", server.address, "--admin", admin)
            thread = threading.Thread(target=lambda: removed.append(command(*arguments)))
            thread.start()
            wait_until(lambda: "removed" in listed(admin)[server.address]["reason"])
            assert thread.is_alive()
            release.set()
            thread.join(TIMEOUT)
            assert removed == [f"{server.address}: removed\n"]
            assert read_head(client)[0].startswith(b"HTTP/1.1 200 ")
            client.close()


def test_help_tells_of_the_commands() -> None:
    for starting in ([sys.executable, "-m", "balancebeam"], [TWISTD, "-n", "balancebeam"]):
        done = subprocess.run(
            [*starting, "--help"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        text = " ".join(done.stdout.split())
        assert "--upstream=" in text
        assert "status, drain, maintenance, ready, weight, register, remove, reload" in text
