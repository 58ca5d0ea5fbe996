"""The admin page in headless Chromium, with a real balancer and real traffic."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.browser import PROGRAM, Browser
from tests.helpers.processes import ScriptedServer, free_port, read_head, run_balancer, wait_until

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def serve_one(connection: socket.socket, number: int) -> None:
    """Answer one request, so that each needs a connection of its own."""
    read_head(connection)
    connection.sendall(RESPONSE)


@contextlib.contextmanager
def traffic(port: int) -> Iterator[None]:
    """Send requests until the end of the context."""
    done = threading.Event()

    def send() -> None:
        """Be a client."""
        while not done.wait(0.02):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", "/")
                    connection.getresponse().read()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def row_of(address: str) -> str:
    """Return a JavaScript expression for the row of a server."""
    return (
        "[...document.querySelectorAll('#pools tbody tr')]"
        f".find((row) => row.textContent.includes({json.dumps(address)}))"
    )


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
def test_page(tmp_path: Path) -> None:
    """The page shows servers, one that was killed, and that a drained one gets no traffic."""
    admin = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        browser = stack.enter_context(Browser())
        killed, drained, other = (stack.enter_context(ScriptedServer(serve_one)) for _ in range(3))
        options = [
            part for server in (killed, drained, other) for part in ("--upstream", server.address)
        ]
        balancer = stack.enter_context(run_balancer(tmp_path, "--admin", admin, *options))
        stack.enter_context(traffic(balancer.port))
        browser.open(f"http://{admin}/")
        for server in (killed, drained, other):
            browser.wait_for(f"{row_of(server.address)}?.dataset.state === 'up'")
        browser.wait_for(f"Number({row_of(drained.address)}.cells[4].textContent) > 0")

        killed.close()
        browser.wait_for(f"{row_of(killed.address)}.dataset.state === 'down'")
        browser.wait_for("document.querySelector('#announcements').textContent.includes('down')")

        browser.evaluate(f"{row_of(drained.address)}.querySelector('button').click()")
        drain = "document.querySelector('[data-state=drain]')"
        browser.evaluate(f"{drain}.focus(); {drain}.click()")
        assert browser.evaluate("document.activeElement.id") == "server-cancel"
        browser.evaluate("document.querySelector('#server-cancel').click()")
        assert browser.evaluate(f"document.activeElement === {drain}")
        browser.evaluate(f"{drain}.click()")
        question = browser.evaluate("document.querySelector('#server-question').textContent")
        assert question.startswith(f"Drain {drained.address}?")
        assert browser.evaluate(f"{row_of(drained.address)}.dataset.state") == "up"
        browser.evaluate("document.querySelector('#server-confirmed').click()")
        browser.wait_for(f"{row_of(drained.address)}.dataset.state === 'draining'")
        assert browser.wait_for("!document.querySelector('#server').open")
        # Requests that were on their way to the server finish.
        time.sleep(0.2)
        count, others = drained.connections, other.connections
        wait_until(lambda: other.connections > others + 10)
        assert drained.connections == count
        browser.wait_for(f"{row_of(drained.address)}.cells[4].textContent === '0'")
        assert browser.messages == []


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
def test_lost_stream(tmp_path: Path) -> None:
    """When the balancer ends, the page reports it; when another starts, the page reconnects."""
    admin = f"127.0.0.1:{free_port()}"
    options = ("--admin", admin, "--upstream", "127.0.0.1:1")
    state = "document.querySelector('#stream').dataset.state"
    with Browser() as browser:
        with run_balancer(tmp_path, *options):
            browser.open(f"http://{admin}/")
            # The row is there as soon as the first snapshot is.
            browser.wait_for(f"{row_of('127.0.0.1:1')}?.dataset.state === 'up'")
        # Each attempt to connect changes the text for a moment.
        banner = "document.querySelector('#banner').textContent"
        browser.wait_for(f"{state} === 'lost' && {banner}.includes('Next attempt in')")
        assert "The values are from" in browser.evaluate(banner)
        with run_balancer(tmp_path, *options):
            browser.wait_for(f"{state} === 'live'")


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
def test_token(tmp_path: Path) -> None:
    """With a token the stream and the controls work; a token that is not valid is reported."""
    port = free_port()
    token = tmp_path / "token"
    token.touch(0o600)
    options = ["--admin", f"127.0.0.1:{port}", "--admin-token-file", str(token)]
    options += ["--upstream", "127.0.0.1:1"]
    state = "document.querySelector('#stream').dataset.state"
    with Browser() as browser:
        token.write_text("sesame\n")
        with run_balancer(tmp_path, *options):
            browser.open(f"http://admin:sesame@127.0.0.1:{port}/")
            browser.wait_for(f"{row_of('127.0.0.1:1')}?.dataset.state === 'up'")
            browser.evaluate(f"{row_of('127.0.0.1:1')}.querySelector('button').click()")
            browser.evaluate("document.querySelector('[data-state=maintenance]').click()")
            browser.evaluate("document.querySelector('#server-confirmed').click()")
            browser.wait_for(f"{row_of('127.0.0.1:1')}.dataset.state === 'maintenance'")
            assert browser.messages == []
        browser.wait_for(f"{state} === 'lost'")
        token.write_text("another\n")
        with run_balancer(tmp_path, *options):
            text = "document.querySelector('#banner').textContent"
            browser.wait_for(f"{text}.startsWith('The token is required')")


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
def test_many_servers(tmp_path: Path) -> None:
    """
    With 200 servers a snapshot changes the graphics of visible rows only. All controls have
    names, live regions stay silent, and the focus stays where it is.
    """
    admin = f"127.0.0.1:{free_port()}"
    options = [part for n in range(200) for part in ("--upstream", f"127.1.0.{n + 1}:1")]
    with Browser() as browser, run_balancer(tmp_path, "--admin", admin, *options):
        browser.resize(1400, 900)
        browser.open(f"http://{admin}/")
        browser.wait_for("document.querySelectorAll('#pools tbody tr').length === 200")
        # The numbers of the last row follow in a later frame.
        browser.wait_for(f"{row_of('127.1.0.200:1')}.cells[2].textContent === '1'")
        browser.evaluate("document.querySelector('#pools tbody button').focus()")
        browser.evaluate(
            "window.said = 0;"
            "for (const node of document.querySelectorAll("
            "    '[aria-live], [role=alert], [role=status]'))"
            "  new MutationObserver(() => { window.said += 1 })"
            "    .observe(node, {subtree: true, childList: true, characterData: true});"
            "window.lines = () => document.querySelectorAll('#pools .line[d^=M]').length"
        )
        # Lines are drawn from two samples on.
        browser.wait_for("window.lines() > 0")
        snapshot = "document.querySelector('#summary').textContent"
        for _ in range(2):
            before = browser.evaluate(snapshot)
            browser.wait_for(f"{snapshot} !== {json.dumps(before)}")
        assert browser.evaluate("window.lines()") < 60
        assert browser.evaluate("window.said") == 0
        focus = "document.activeElement === document.querySelector('#pools tbody button')"
        assert browser.evaluate(focus)
        browser.evaluate(f"{row_of('127.1.0.200:1')}.scrollIntoView()")
        browser.wait_for(f"{row_of('127.1.0.200:1')}.querySelector('.line[d^=M]') !== null")
        nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
        names = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]
        controls = ("button", "link", "searchbox", "checkbox", "table", "region", "dialog")
        assert [role for role, name in names if role in controls and not name] == []
        assert ("button", "Manage 127.1.0.200:1") in names
        assert ("columnheader", "Requests/s") in names
        assert {"banner", "navigation", "main"} <= {role for role, _ in names}
