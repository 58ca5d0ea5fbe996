"""Servers that die, freeze and come back under the program, as clients see it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.helpers.processes import TIMEOUT, free_port, read_head, run_balancer, wait_until

# Answers with its name; a process of its own, so that it can be killed and frozen.
_SERVER = """
import sys
from twisted.internet import reactor
from twisted.web import resource, server
class Page(resource.Resource):
    isLeaf = True
    well = True
    def render(self, request):
        if request.uri == b"/health" and not Page.well:
            request.setResponseCode(503)
        if request.uri == b"/sicken":
            Page.well = False
        return sys.argv[2].encode()
site = server.Site(Page())
site.log = lambda request: None
reactor.listenTCP(int(sys.argv[1]), site, interface="127.0.0.1", backlog=512)
reactor.run()
"""


class ServerProcess:
    """A server that can be killed, frozen and started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", _SERVER, str(self.port), self.name]
        self.process = subprocess.Popen(command)
        wait_until(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)


class ClientThreads:
    """Threads that ask one GET after the other, each on one connection."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._going = True
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as client:
            while self._going:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                head, body = read_head(client)
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                while len(body) < int(length):
                    body += client.recv(1000)
                (self.answers if head[9:12] == b"200" else self.failures).append(body.decode())

    def wait_for_responses(self, more: int = 300) -> list[str]:
        """Wait for so many more answers; these."""
        before = len(self.answers)
        wait_until(lambda: len(self.answers) >= before + more)
        return self.answers[before:]

    def stop(self) -> None:
        self._going = False
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_killed_restarted_frozen_and_resumed(tmp_path: Path) -> None:
    servers = [ServerProcess(name) for name in ("one", "two", "three")]
    upstreams = [option for s in servers for option in ("-u", s.address)]
    checks = ("--active-health-check-path", "/health", "-t", "0.4")
    options = (*upstreams, *checks, "--cooldown", "0.5", "--upstream-timeout", "2")
    one, two, three = servers
    try:
        with run_balancer(tmp_path, *options) as running:
            clients = ClientThreads(running.port, 8)
            try:
                assert set(clients.wait_for_responses()) == {"one", "two", "three"}
                one.kill()
                clients.wait_for_responses(50)
                assert set(clients.wait_for_responses()) == {"two", "three"}
                one.start()
                wait_until(lambda: "one" in clients.wait_for_responses(20))
                two.signal(signal.SIGSTOP)
                wait_until(lambda: "two" not in clients.wait_for_responses(100))
                two.signal(signal.SIGCONT)
                wait_until(lambda: "two" in clients.wait_for_responses(20))
                # A server may say by itself that it is not well.
                with socket.create_connection(("127.0.0.1", three.port), TIMEOUT) as direct:
                    direct.sendall(b"GET /sicken HTTP/1.1\r\nHost: a\r\n\r\n")
                    read_head(direct)
                wait_until(lambda: "three" not in clients.wait_for_responses(100))
            finally:
                clients.stop()
            # Only what the frozen server was asked before it was found out.
            assert len(clients.failures) <= 8
            assert all("did not respond in time" in text for text in clients.failures)
        said = running.output.read_text()
        assert said.count(f"{three.address} is down") == 1, said
        assert "answered with 503" in said
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)
            server.kill()


def test_a_pool_that_checks_have_emptied(tmp_path: Path) -> None:
    port = free_port()
    with run_balancer(tmp_path, "-u", f"127.0.0.1:{port}", "-t", "0.2") as running:
        wait_until(lambda: "is down" in running.output.read_text())
        with running.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            head, _ = read_head(client)
        assert head.startswith(b"HTTP/1.1 503 ")
