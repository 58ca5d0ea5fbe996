"""
`python -m tests.helpers.screenshot`: take `docs/images/admin-page.png` from a real run.

Three demo servers, some traffic, and one server drained. It needs chromium, and the ports
1100 and 1101.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import threading
import time
import urllib.request
from typing import Any

from tests.helpers.browser import Browser
from tests.helpers.documentation import DOCS
from tests.helpers.processes import BALANCEBEAM, wait_until

IMAGE = DOCS / "images" / "admin-page.png"
ADMIN = "http://127.0.0.1:1101"
WIDTH, HEIGHT = 1240, 470

# Clients, their pause after each request in seconds, and the seconds before the picture is taken:
# long enough for the sparklines.
CLIENTS = 8
PAUSE = 0.01
TRAFFIC = 32


def send_requests(done: threading.Event) -> None:
    """Be a client until `done`."""
    connection = http.client.HTTPConnection("127.0.0.1", 1100)
    with contextlib.closing(connection):
        while not done.wait(PAUSE):
            connection.request("GET", "/")
            connection.getresponse().read()


def get_json(url: str, **arguments: Any) -> Any:
    """Return the JSON document at `url`, or `None` as long as nothing listens there."""
    request = urllib.request.Request(url, **arguments)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except OSError:
        return None


def main() -> None:
    """Start everything, take the picture, and stop everything."""
    options = ("--demo", "3", "--admin", "127.0.0.1:1101", "--bind", "127.0.0.1:1100")
    done = threading.Event()
    clients = [threading.Thread(target=send_requests, args=(done,)) for _ in range(CLIENTS)]
    with contextlib.ExitStack() as stack:
        balancer = subprocess.Popen([BALANCEBEAM, *options, "-a", "power-of-two"])
        stack.callback(balancer.wait)
        stack.callback(balancer.terminate)
        servers = wait_until(lambda: get_json(f"{ADMIN}/upstreams"))["data"]
        for client in clients:
            client.start()
            stack.callback(client.join)
        stack.callback(done.set)
        browser = stack.enter_context(Browser())
        browser.resize(WIDTH, HEIGHT)
        browser.set_color_scheme("light")
        browser.open(f"{ADMIN}/")
        time.sleep(TRAFFIC * 3 / 4)
        last = servers[-1]
        body = b'{"state": "drain"}'
        path = f"/upstreams/{last['pool']}/{last['address']}"
        get_json(f"{ADMIN}{path}", data=body, method="PATCH")
        time.sleep(TRAFFIC / 4)
        IMAGE.write_bytes(browser.screenshot())


if __name__ == "__main__":
    main()
