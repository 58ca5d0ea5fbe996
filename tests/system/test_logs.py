"""Log files of a real process: format, rotation by SIGUSR1, and a full disk."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from tests.helpers.http_client import get
from tests.helpers.processes import (
    BALANCEBEAM,
    TIMEOUT,
    TWISTD,
    ScriptedServer,
    accepts_connections,
    free_port,
    respond_with,
    run_balancer,
    wait_until,
)


def test_rotation_and_json(tmp_path: Path) -> None:
    """SIGUSR1 opens access log and --logfile again; with json, every line is an object."""
    log, access, port = tmp_path / "log", tmp_path / "access", free_port()
    command = [TWISTD, "-n", "--pidfile=", "--logfile", str(log), "balancebeam"]
    command += ["--log-format", "json", "--access-log", str(access), "--access-log-format", "json"]
    with ScriptedServer(respond_with("one")) as server:
        command += ["--bind", f"127.0.0.1:{port}", "--upstream", server.address]
        process = subprocess.Popen(command, cwd=tmp_path)
        try:
            wait_until(lambda: accepts_connections(port))
            wait_until(lambda: "listening on" in log.read_text())
            assert get(port).endswith(b"one")
            wait_until(lambda: access.read_text().count("\n") == 1)
            for path in (log, access):
                path.rename(path.with_suffix(".1"))
            process.send_signal(signal.SIGUSR1)
            wait_until(lambda: log.exists() and "log files reopened" in log.read_text())
            assert get(port).endswith(b"one")
            wait_until(lambda: access.read_text().count("\n") == 1)
        finally:
            process.terminate()
            assert process.wait(TIMEOUT) == 0
    lines = [*log.with_suffix(".1").open(), *log.open()]
    events = [json.loads(line) for line in lines]
    assert all({"time", "level", "namespace", "message"} <= event.keys() for event in events)
    (listening,) = [event for event in events if event["message"].startswith("listening on")]
    assert listening["address"] == f"http://127.0.0.1:{port}"
    assert len(access.with_suffix(".1").read_text().splitlines()) == 1


def test_recent_requests(tmp_path: Path) -> None:
    """`balancebeam requests` shows the requests of a running balancer."""
    admin = f"127.0.0.1:{free_port()}"
    with ScriptedServer(respond_with("one")) as server:
        with run_balancer(tmp_path, "--upstream", server.address, "--admin", admin) as running:
            assert get(running.port).endswith(b"one")

            def command(*options: str) -> str:
                """The output of the command with these options."""
                line = [BALANCEBEAM, "requests", "--admin", admin, *options]
                return subprocess.run(line, check=True, capture_output=True, text=True).stdout

            (row,) = json.loads(command("--json"))
            assert (row["status"], row["tries"][0]["server"]) == (200, server.address)
            assert row["id"] in command("--slow")
            assert f"id: {row['id']}" in command("--id", row["id"])
            assert "no such requests" in command("--failed")


def test_full_disk(tmp_path: Path) -> None:
    """Requests are served although no line of the access log can be written."""
    with ScriptedServer(respond_with("one")) as server:
        options = ("--upstream", server.address, "--access-log", "/dev/full")
        running_log = ""
        with run_balancer(tmp_path, *options, "--log-format", "json") as running:
            assert get(running.port).endswith(b"one")
            wait_until(lambda: "no space left on device" in running.output.read_text())
            for _ in range(20):
                assert get(running.port).endswith(b"one")
            running_log = running.output.read_text()
    assert running_log.count("cannot write log file /dev/full") == 1
