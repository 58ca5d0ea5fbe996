"""Headless Chromium, driven by the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.helpers.processes import TIMEOUT, wait_until

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars"),
    "--remote-debugging-port=0",
)


class Browser:
    """
    A Chromium with one page.

    Attributes:
        messages: Errors and warnings of the page: violations of its policy, exceptions, and
            resources that could not be loaded.
    """

    def __init__(self) -> None:
        """Start it with an empty page."""
        assert PROGRAM is not None, "chromium is not installed"
        self.messages: list[str] = []
        self._home = tempfile.mkdtemp()
        self._stack = contextlib.ExitStack()
        self._process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={self._home}", "about:blank"],
            stderr=subprocess.DEVNULL,
        )
        self._count = 0
        try:
            port_file = Path(self._home, "DevToolsActivePort")
            text = wait_until(lambda: port_file.exists() and port_file.read_text())
            port, path = text.split()
            address = f"ws://127.0.0.1:{port}{path}"
            self._devtools = self._stack.enter_context(connect(address, max_size=None))
            (target,) = [
                info["targetId"]
                for info in self._send("Target.getTargets")["targetInfos"]
                if info["type"] == "page"
            ]
            attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.send(f"{domain}.enable")
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._end()

    def _end(self) -> None:
        self._stack.close()
        self._process.terminate()
        self._process.wait(TIMEOUT)
        shutil.rmtree(self._home, ignore_errors=True)

    def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the DevTools protocol for the page, and return its result."""
        return self._send(method, self._session, **parameters)

    def _send(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._devtools.send(json.dumps(message))
        while True:
            answer = json.loads(self._devtools.recv(TIMEOUT))
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._notice(answer)

    def _notice(self, event: Mapping[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            self.messages.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    def open(self, url: str) -> None:
        """Open `url`."""
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; promises are awaited."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Return the value of an expression as soon as it is true, without an error."""
        guarded = f"(() => {{ try {{ return {expression} }} catch (error) {{ return null }} }})()"
        return wait_until(lambda: self.evaluate(guarded))

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Set the size of the page in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )

    def set_color_scheme(self, scheme: str) -> None:
        """Prefer "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def screenshot(self) -> bytes:
        """Return the page as PNG."""
        data: str = self.send("Page.captureScreenshot")["data"]
        return base64.b64decode(data)
