"""Failures and recoveries of server processes, observed by clients of the balancer."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.helpers.processes import (
    TIMEOUT,
    accepts_connections,
    free_port,
    read_head,
    run_balancer,
    wait_until,
)

# Responds with its name (argv[2]). A separate process can be killed and stopped.
_SERVER = """
import sys
from twisted.internet import reactor
from twisted.web import resource, server
class Page(resource.Resource):
    isLeaf = True
    healthy = True
    def render(self, request):
        if request.uri == b"/health" and not Page.healthy:
            request.setResponseCode(503)
        if request.uri == b"/fail-checks":
            Page.healthy = False
        return sys.argv[2].encode()
site = server.Site(Page())
site.log = lambda request: None
reactor.listenTCP(int(sys.argv[1]), site, interface="127.0.0.1", backlog=512)
reactor.run()
"""


class ServerProcess:
    """
    A server process that can be killed, stopped, resumed and started again.

    Attributes:
        name: body of its responses.
        port: TCP port of 127.0.0.1 that it listens on.
        address: "127.0.0.1:" and the port.
        process: the process.
    """

    def __init__(self, name: str) -> None:
        """Start the server on a free port."""
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it accepts connections."""
        command = [sys.executable, "-c", _SERVER, str(self.port), self.name]
        self.process = subprocess.Popen(command)
        wait_until(lambda: accepts_connections(self.port))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, and wait for its exit."""
        self.process.kill()
        self.process.wait(TIMEOUT)


class ClientThreads:
    """
    Threads that send GET requests in a row, each thread on one connection.

    Attributes:
        port: the balancer's port.
        bodies: bodies of the responses with status 200.
        failures: bodies of all other responses.
    """

    def __init__(self, port: int, count: int) -> None:
        """Start `count` threads."""
        self.port = port
        self.bodies: list[str] = []
        self.failures: list[str] = []
        self._running = True
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        """Send requests and record their responses until `stop` is called."""
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as client:
            while self._running:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                head, body = read_head(client)
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                while len(body) < int(length):
                    body += client.recv(1000)
                (self.bodies if head[9:12] == b"200" else self.failures).append(body.decode())

    def wait_for_responses(self, more: int = 300) -> list[str]:
        """Wait for `more` further successful responses; return their bodies."""
        before = len(self.bodies)
        wait_until(lambda: len(self.bodies) >= before + more)
        return self.bodies[before:]

    def stop(self) -> None:
        """Stop all threads."""
        self._running = False
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_servers_fail_and_recover(tmp_path: Path) -> None:
    """Servers that are killed, stopped or fail their check get no requests until they recover."""
    servers = [ServerProcess(name) for name in ("one", "two", "three")]
    upstreams = [option for server in servers for option in ("-u", server.address)]
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
                # The third server fails its health checks, but still answers requests.
                with socket.create_connection(("127.0.0.1", three.port), TIMEOUT) as direct:
                    direct.sendall(b"GET /fail-checks HTTP/1.1\r\nHost: a\r\n\r\n")
                    read_head(direct)
                wait_until(lambda: "three" not in clients.wait_for_responses(100))
            finally:
                clients.stop()
            # At most the eight requests in flight when the second server was stopped.
            assert len(clients.failures) <= 8
            assert all("did not respond in time" in text for text in clients.failures)
        log = running.output.read_text()
        assert log.count(f"{three.address} is down") == 1, log
        assert "answered with 503" in log
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)
            server.kill()


def test_no_healthy_server(tmp_path: Path) -> None:
    """A request is answered with 503 when health checks have failed on every server."""
    port = free_port()
    with run_balancer(tmp_path, "-u", f"127.0.0.1:{port}", "-t", "0.2") as running:
        wait_until(lambda: "is down" in running.output.read_text())
        with running.connect() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            head, _ = read_head(client)
        assert head.startswith(b"HTTP/1.1 503 ")
