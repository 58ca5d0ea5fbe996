"""
`python -m tests.helpers.screenshot`: take `docs/images/admin-page.png` from a real run.

Three demo servers, some traffic, and one server drained. It needs chromium, and the ports
1100 and 1101.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.helpers.documentation import DOCS
from tests.helpers.processes import free_port, wait_until

IMAGE = DOCS / "images" / "admin-page.png"
ADMIN = "http://127.0.0.1:1101"
WIDTH, HEIGHT = 1000, 290

# Clients, their pause after each request in seconds, and the seconds before the picture is taken.
CLIENTS = 8
PAUSE = 0.01
TRAFFIC = 5

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"),
)


def send_requests(done: threading.Event) -> None:
    """Be a client until `done`."""
    connection = http.client.HTTPConnection("127.0.0.1", 1100)
    with contextlib.closing(connection):
        while not done.wait(PAUSE):
            connection.request("GET", "/")
            connection.getresponse().read()


def get_json(url: str, **arguments: Any) -> Any:
    """The JSON document at `url`, or None as long as nothing listens there."""
    request = urllib.request.Request(url, **arguments)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except OSError:
        return None


def photograph(port: int) -> bytes:
    """The page as a PNG, from a chromium whose DevTools listen at `port`."""
    pages = wait_until(lambda: get_json(f"http://127.0.0.1:{port}/json/list"))
    address = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
    with connect(address, max_size=None) as devtools:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        resize = {"id": 1, "method": "Emulation.setDeviceMetricsOverride", "params": size}
        devtools.send(json.dumps(resize))
        devtools.recv()
        # Long enough for the page to know the requests per second.
        time.sleep(TRAFFIC)
        devtools.send(json.dumps({"id": 2, "method": "Page.captureScreenshot"}))
        return base64.b64decode(json.loads(devtools.recv())["result"]["data"])


def main() -> None:
    """Start everything, take the picture, and stop everything."""
    program = str(Path(sys.executable).with_name("balancebeam"))
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    options = ("--demo", "3", "--admin", "127.0.0.1:1101", "--bind", "127.0.0.1:1100")
    done = threading.Event()
    clients = [threading.Thread(target=send_requests, args=(done,)) for _ in range(CLIENTS)]
    with contextlib.ExitStack() as stack:
        balancer = subprocess.Popen([program, *options, "-a", "power-of-two"])
        stack.callback(balancer.wait)
        stack.callback(balancer.terminate)
        servers = wait_until(lambda: get_json(f"{ADMIN}/upstreams"))["data"]
        for client in clients:
            client.start()
            stack.callback(client.join)
        stack.callback(done.set)
        time.sleep(1)
        last = servers[-1]
        get_json(
            f"{ADMIN}/upstreams/{last['pool']}/{last['address']}",
            data=b'{"state": "drain"}',
            method="PATCH",
        )
        home = tempfile.mkdtemp()
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        port = free_port()
        flags = (*FLAGS, f"--user-data-dir={home}", f"--remote-debugging-port={port}")
        chromium = subprocess.Popen([browser, *flags, f"{ADMIN}/"], stderr=subprocess.DEVNULL)
        stack.callback(chromium.wait)
        stack.callback(chromium.terminate)
        IMAGE.write_bytes(photograph(port))


if __name__ == "__main__":
    main()
