"""The program log of a real process: one line for each state change, none for requests."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.configured_balancer import COMMANDS, ConfiguredBalancer, run_configured_balancer
from tests.helpers.http_client import get
from tests.helpers.processes import ScriptedServer, free_port, read_head, respond_with, wait_until

CONFIG = """
[admin]
bind = "127.0.0.1:{admin}"
[[frontend]]
name = "web"
bind = "127.0.0.1:{port}"
pool = "app"
[[pool]]
name = "app"
upstreams = ["{first}", "{second}"]
[pool.passive]
failures = 1
cooldown = 0.3
"""


def events(log: Path) -> list[dict[str, Any]]:
    """All events of balancebeam's own modules; each line of the log must be an object."""
    parsed = [json.loads(line) for line in log.read_text().splitlines()]
    return [event for event in parsed if event["namespace"].startswith("balancebeam.")]


def admin_request(port: int, method: str, path: str, body: object) -> None:
    """Send a request with a JSON body to the admin API, which must succeed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    assert response.status < 300, (method, path, text)
    connection.close()


def respond_once(connection: socket.socket, number: int) -> None:
    """Answer one request of a connection, so that none remains when the server is closed."""
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\ntwo")


def check_signals(
    running: ConfiguredBalancer, text: str, lines: Callable[[str], list[dict[str, Any]]]
) -> None:
    """Assert that SIGUSR1, and SIGHUP with a changed and an invalid file, log one line each."""
    running.send(signal.SIGUSR1)
    wait_until(lambda: lines("log files reopened"))
    running.config.write_text(text.replace("cooldown = 0.3", "cooldown = 4"))
    running.send(signal.SIGHUP)
    (reloaded,) = wait_until(lambda: lines("reloaded:"))
    assert "passive" in reloaded["change"]
    running.config.write_text(text + "unknown = 1\n")
    running.send(signal.SIGHUP)
    (rejected,) = wait_until(lambda: lines("reload rejected:"))
    assert (rejected["level"], "unknown" in rejected["problem"]) == ("error", True)
    assert len(lines("log files reopened")) == 1


def test_state_changes_and_requests(tmp_path: Path) -> None:
    """Each state change is one line with keys; 500 requests, of which some fail, are none."""
    port, admin = free_port(), free_port()
    first, second = ScriptedServer(respond_with("one")), ScriptedServer(respond_once)
    text = CONFIG.format(port=port, admin=admin, first=first.address, second=second.address)
    command = [*COMMANDS[2], "--log-format", "json"]
    third = ScriptedServer(respond_with("three"))
    extra = third.address
    with run_configured_balancer(tmp_path, text, argv=command) as running:
        log = running.log
        wait_until(lambda: running.has_logged("listening on"))
        wait_until(lambda: get(port).endswith((b"one", b"two")))

        def lines(part: str) -> list[dict[str, Any]]:
            """The events whose message contains `part`."""
            return [event for event in events(log) if part in event["message"]]

        listening = [event["address"] for event in lines("listening on")]
        assert sorted(listening) == sorted(f"http://127.0.0.1:{each}" for each in (port, admin))
        path = f"/upstreams/app/{second.address}"
        changes = [{"weight": 3}, *({"state": s} for s in ("maintenance", "drain", "ready"))]
        for change in changes:
            admin_request(admin, "PATCH", path, change)
        changed = lines("changed by the admin API")
        assert [event["server"] for event in changed] == [second.address] * 4
        assert [event["changes"] for event in changed] == changes
        admin_request(admin, "POST", "/upstreams/app", {"address": extra, "weight": 1})
        admin_request(admin, "DELETE", f"/upstreams/app/{extra}", None)
        (registered,), (removed,) = lines("registered with weight"), lines("removed by")
        assert (registered["server"], registered["weight"], removed["server"]) == (extra, 1, extra)

        number = len(events(log))
        for _ in range(225):
            assert get(port).startswith(b"HTTP/1.1 200 ")
            get(port, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        for _ in range(50):
            get(port, b"\x00\r\n\r\n")
        assert len(events(log)) == number, events(log)[number:]

        second.close()
        wait_until(lambda: [get(port), lines("ejected for")][1])
        ejected = lines("ejected for")[0]
        assert (ejected["server"], ejected["level"]) == (second.address, "warn")
        assert ejected["seconds"] == 0.3 and ejected["reason"]
        with ScriptedServer(respond_once, second.port):
            wait_until(lambda: [get(port), lines("readmitted")][1])
            (readmitted,) = lines("readmitted")
            assert readmitted["server"] == second.address and readmitted["reason"]
            check_signals(running, text, lines)
    first.close()
    third.close()
