"""Signals, systemd notification and socket activation, and hot restarts of real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.configured_balancer import (
    COMMANDS,
    config,
    run_configured_balancer,
)
from tests.helpers.http_client import GET, GET_CLOSE, connect, get, responds, try_connect
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    respond_with,
    wait_until,
)


def delayed_response(
    request_received: threading.Event, respond_now: threading.Event
) -> Callable[[socket.socket, int], None]:
    """
    Return a `serve` function that delays the responses to requests for /slow.

    Args:
        request_received: is set when a request for /slow has been received.
        respond_now: is awaited before that request is answered.
    """
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"

    def serve(connection: socket.socket, number: int) -> None:
        """Answer every request of a connection, /slow when `respond_now` is set."""
        while True:
            head, _ = read_head(connection)
            if head.startswith(b"GET /slow"):
                request_received.set()
                respond_now.wait(TIMEOUT)
            connection.sendall(page)

    return serve


def test_sigterm_drains_connections(tmp_path: Path) -> None:
    """SIGTERM closes listeners and idle connections, but active requests are finished."""
    request_received, respond_now = threading.Event(), threading.Event()
    port, admin = free_port(), free_port()
    with ScriptedServer(delayed_response(request_received, respond_now)) as server:
        after = f'[admin]\nbind = "127.0.0.1:{admin}"'
        text = config(server.address, f"127.0.0.1:{port}", after=after)
        with run_configured_balancer(tmp_path, text, port) as balancer, connect(port) as client:
            with connect(port) as idle:
                idle.sendall(GET)
                read_head(idle)
                client.sendall(GET.replace(b"/ ", b"/slow "))
                assert request_received.wait(TIMEOUT)
                balancer.send(signal.SIGTERM)
                began = time.monotonic()
                assert read_all(idle) in (b"", b"late")
                assert time.monotonic() - began < 4
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            assert b" 503 " in get(admin, GET_CLOSE.replace(b"/ ", b"/readyz "))
            assert b" 200 " in get(admin, GET_CLOSE.replace(b"/ ", b"/healthz "))
            respond_now.set()
            response = read_all(client)
            assert response.endswith(b"late")
            assert b"Connection: close\r\n" in response
            assert balancer.wait() == 0


def test_sigint_without_connections_exits_at_once(
    tmp_path: Path, server_one: ScriptedServer
) -> None:
    """SIGINT ends a balancer without connections within 4 s."""
    port = free_port()
    with run_configured_balancer(
        tmp_path, config(server_one.address, f"127.0.0.1:{port}"), port
    ) as balancer:
        began = time.monotonic()
        balancer.send(signal.SIGINT)
        assert balancer.wait() == 0
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("cause", ["timeout", "second signal", "no timeout"])
def test_remaining_connections_are_closed(
    tmp_path: Path, server_one: ScriptedServer, cause: str
) -> None:
    """Connections are closed by the drain timeout (at once if it is 0) or a second SIGTERM."""
    port = free_port()
    limit = {"timeout": 1.5, "second signal": 30, "no timeout": 0}[cause]
    text = config(server_one.address, f"127.0.0.1:{port}", before=f"drain_timeout = {limit}")
    text = text.replace('name = "web"', 'name = "web"\nmode = "tcp"')
    with (
        run_configured_balancer(tmp_path, text) as balancer,
        wait_until(lambda: try_connect(port)) as client,
    ):
        client.sendall(GET)
        read_head(client)
        balancer.send(signal.SIGTERM)
        if cause != "no timeout":
            wait_until(lambda: balancer.has_logged("draining"))
            client.sendall(GET)
            read_head(client)
        if cause == "second signal":
            balancer.send(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            read_all(client)
        assert balancer.wait() == 0


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 203.0.113.1 192.0.2.1 1 2\r\n"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_connection_in_accept_queue_is_served(
    tmp_path: Path, server_one: ScriptedServer, header: bytes, family: str
) -> None:
    """Connections in the kernel's accept queue are served before the listener is closed."""
    port: int | str = free_port() if family == "tcp" else str(tmp_path / "socket")
    bind = f"127.0.0.1:{port}" if family == "tcp" else f"unix:{port}"
    text = config(server_one.address, f"haproxy:{bind}" if header else bind)
    with run_configured_balancer(tmp_path, text) as balancer:
        # A response shows that the reactor runs and its signal handlers are installed.
        with wait_until(lambda: try_connect(port)) as first:
            first.sendall(header + GET_CLOSE)
            assert read_all(first).endswith(b"one")
        balancer.send(signal.SIGSTOP)
        clients = [connect(port) for _ in range(150)]
        for client in clients[:75]:
            client.sendall(header + GET_CLOSE)
        balancer.send(signal.SIGTERM)
        balancer.send(signal.SIGCONT)
        wait_until(lambda: balancer.has_logged("draining"))
        for client in clients[75:]:
            client.sendall(header + GET_CLOSE)
        for client in clients:
            with client:
                assert read_all(client).endswith(b"one")
        assert balancer.wait() == 0


def test_sigterm_during_startup(tmp_path: Path, server_one: ScriptedServer) -> None:
    """SIGTERM during the start ends the process."""
    text = config(server_one.address, f"127.0.0.1:{free_port()}")
    for delay in (0.1, 0.5):
        with run_configured_balancer(tmp_path, text) as balancer:
            time.sleep(delay)
            balancer.send(signal.SIGTERM)
            assert balancer.wait() in (0, -signal.SIGTERM)


class NotifySocket:
    """
    The notification socket of a service manager.

    Attributes:
        socket: the datagram socket.
    """

    def __init__(self, path: str) -> None:
        """Bind the socket to `path`; an initial @ stands for the abstract namespace."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)

    def receive(self) -> list[str]:
        """Wait for one notification; return its lines."""
        return self.socket.recv(4096).decode().splitlines()


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_is_notified(
    tmp_path: Path, server_one: ScriptedServer, abstract: bool
) -> None:
    """Start, reload, rejected reload and stop are notified to the service manager."""
    path = f"@balancebeam-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = NotifySocket(path)
    port = free_port()
    text = config(server_one.address, f"127.0.0.1:{port}")
    with (
        manager.socket,
        run_configured_balancer(
            tmp_path, text, port, environment={"NOTIFY_SOCKET": path}
        ) as balancer,
    ):
        ready = manager.receive()
        assert ready[:2] == ["READY=1", f"MAINPID={balancer.process.pid}"]
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        balancer.send(signal.SIGHUP)
        reloading, when = manager.receive()
        assert reloading == "RELOADING=1"
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert before <= int(when.partition("MONOTONIC_USEC=")[2]) <= now
        assert manager.receive()[2] == "STATUS=Balancing."
        balancer.config.write_text("nonsense")
        balancer.send(signal.SIGHUP)
        assert manager.receive()[0] == "RELOADING=1"
        assert manager.receive()[2] == "STATUS=Balancing; the last reload was rejected."
        with connect(port) as client:
            client.sendall(GET[:10])
            wait_until(lambda: _is_connected(port))
            balancer.send(signal.SIGTERM)
            assert manager.receive()[0] == "STOPPING=1"
            # A reload while draining is not notified: READY=1 would look like a start.
            balancer.send(signal.SIGHUP)
            wait_until(lambda: balancer.has_logged("reload rejected: draining"))
            balancer.send(signal.SIGTERM)
            assert balancer.wait() == 0
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.receive()


def _is_connected(port: int) -> bool:
    """Return whether a TCP socket of this machine uses `port`."""
    return f":{port:04X} " in Path("/proc/net/tcp").read_text()


# Shell commands that set the variables as systemd does; $$ is the process that becomes the
# balancer, and %d the number of sockets.
SYSTEMD = "export LISTEN_PID=$$ LISTEN_FDS=%d;"


def activation_arguments(listeners: Sequence[socket.socket], count: int = 0) -> dict[str, object]:
    """
    Return the arguments for `run_configured_balancer` that pass sockets as systemd does.

    Args:
        listeners: the sockets, passed as descriptors 3 and up.
        count: value of LISTEN_FDS, by default the number of sockets.
    """
    moves = "".join(
        f" exec {3 + number}<&{listener.fileno()} {listener.fileno()}<&-;"
        for number, listener in enumerate(listeners)
    )
    return {
        "shell": SYSTEMD % (count or len(listeners)) + moves,
        "fds": [listener.fileno() for listener in listeners],
    }


def with_high_descriptor(listener: socket.socket) -> socket.socket:
    """Return the socket with a descriptor of 300 or more, which no passed socket replaces."""
    descriptor = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 300)
    listener.close()
    return socket.socket(fileno=descriptor)


def test_socket_activation(tmp_path: Path, server_one: ScriptedServer) -> None:
    """Inherited sockets serve their listeners and outlive the process; unused ones are closed."""
    path = str(tmp_path / "socket")
    tcp = with_high_descriptor(socket.create_server(("127.0.0.1", 0)))
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    os.chmod(path, 0o600)
    local.listen()
    local = with_high_descriptor(local)
    unused = with_high_descriptor(socket.create_server(("127.0.0.1", 0)))
    plain = with_high_descriptor(socket.socket())
    port, unused_port = tcp.getsockname()[1], unused.getsockname()[1]
    text = config(server_one.address, f"127.0.0.1:{port}", f"unix:{path}")
    arguments = activation_arguments([tcp, local, unused, plain])
    with (
        tcp,
        local,
        plain,
        run_configured_balancer(tmp_path, text, port, path, **arguments) as balancer,
    ):
        assert balancer.has_logged("ignoring inherited descriptor 6: not a listening socket")
        assert balancer.has_logged(
            f"closing inherited socket 127.0.0.1:{unused_port}: not configured"
        )
        unused.close()
        with pytest.raises(ConnectionRefusedError):
            connect(unused_port)
        assert os.stat(path).st_mode & 0o777 == 0o600
        balancer.send(signal.SIGTERM)
        assert balancer.wait() == 0
        # The service manager still listens on its sockets.
        connect(port).close()
        connect(path).close()


def test_dual_stack_socket_activation(tmp_path: Path, server_one: ScriptedServer) -> None:
    """A dual-stack socket of the service manager serves a listener that is bound to 0.0.0.0."""
    both = with_high_descriptor(
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    port = both.getsockname()[1]
    text = config(server_one.address, f"0.0.0.0:{port}")
    with both, run_configured_balancer(tmp_path, text, port, **activation_arguments([both])):
        pass


def test_sockets_of_another_process_are_ignored(tmp_path: Path, server_one: ScriptedServer) -> None:
    """LISTEN_FDS is ignored if LISTEN_PID is the id of another process."""
    inherited = with_high_descriptor(socket.create_server(("127.0.0.1", 0)))
    port = free_port()
    arguments = {
        "environment": {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        "fds": [inherited.fileno()],
    }
    with (
        inherited,
        run_configured_balancer(
            tmp_path, config(server_one.address, f"127.0.0.1:{port}"), port, **arguments
        ) as balancer,
    ):
        assert not balancer.has_logged("inherited descriptor")


@pytest.mark.parametrize("command", COMMANDS)
def test_hot_restart(tmp_path: Path, server_one: ScriptedServer, command: Sequence[str]) -> None:
    """A hot restart refuses no connection; the new process owns the sockets and the PID file."""
    port, plain, admin, wide = (free_port() for _ in range(4))
    path = str(tmp_path / "socket")
    binds = (f"127.0.0.1:{port}", f"unix:{path}", f"tcp:{plain}:interface=127.0.0.1")
    before = f'state = "{tmp_path / "state.json"}"'
    after = f'[admin]\nbind = "127.0.0.1:{admin}"\n[[frontend]]\nname = "more"\npool = "app"\n'
    after += f'bind = ["0.0.0.0:{wide}", "haproxy:[::1]:{wide}"]\n'
    text = config(server_one.address, *binds, before=before, after=after)
    failed: list[str] = []
    done = threading.Event()
    with run_configured_balancer(tmp_path, text, port, path, plain, wide, argv=command) as balancer:
        pid_file = tmp_path / "twistd.pid"
        assert pid_file.exists() == (command == COMMANDS[1])

        def send_requests() -> None:
            """Send requests to every address until `done` is set, and record failures."""
            while not done.is_set():
                for address in (port, path, plain, wide):
                    try:
                        if not get(address).endswith(b"one"):
                            failed.append("incomplete response")
                    except OSError as error:
                        failed.append(repr(error))

        requests = threading.Thread(target=send_requests)
        requests.start()
        try:
            balancer.send(signal.SIGUSR2)
            wait_until(lambda: balancer.has_logged("hot restart: starting a new process"))
            balancer.send(signal.SIGUSR2)
            wait_until(lambda: balancer.has_logged("hot restart ignored: already restarting"))
            (new_pid,) = balancer.children()
            assert balancer.wait() == 0
            for address in (port, path, plain, wide):
                assert responds(address)
            assert b" 200 " in get(admin, GET_CLOSE.replace(b"/ ", b"/readyz "))
            if command == COMMANDS[1]:
                assert pid_file.read_text() == str(new_pid)
                assert not (tmp_path / "twistd.pid.old").exists()
        finally:
            done.set()
            requests.join(TIMEOUT)
        assert not failed, failed[:3]
        # The new process unlinks the Unix socket and the PID file when it exits.
        os.kill(new_pid, signal.SIGTERM)
        wait_until(lambda: not os.path.exists(path))
        wait_until(lambda: not pid_file.exists())


@pytest.mark.parametrize("limit", [None, 1.5])
def test_transfers_outlast_the_drain_timeout_of_a_hot_restart(
    tmp_path: Path, limit: float | None
) -> None:
    """After SIGUSR2, a response is cut at the handover timeout only, if there is one."""
    received, answer_now = threading.Event(), threading.Event()
    port = free_port()
    before = "drain_timeout = 0.5"
    if limit is not None:
        before += f"\nhandover_timeout = {limit}"
    with ScriptedServer(delayed_response(received, answer_now)) as server:
        text = config(server.address, f"127.0.0.1:{port}", before=before)
        with run_configured_balancer(tmp_path, text, port) as balancer, connect(port) as client:
            client.sendall(GET.replace(b"/ ", b"/slow "))
            assert received.wait(TIMEOUT)
            balancer.send(signal.SIGUSR2)
            wait_until(lambda: balancer.has_logged("draining; send the signal again"))
            if limit is None:
                with pytest.raises(subprocess.TimeoutExpired):
                    balancer.process.wait(4)
                answer_now.set()
                assert read_all(client).endswith(b"late")
            else:
                with contextlib.suppress(ConnectionResetError):
                    assert read_all(client) == b""
                assert balancer.has_logged("handover timeout expired")
            assert balancer.wait() == 0
            assert responds(port)


@pytest.mark.parametrize("then", [signal.SIGTERM, signal.SIGUSR2])
def test_pid_file_while_the_old_process_drains(tmp_path: Path, then: int) -> None:
    """While the old process drains, the new one can be stopped, or be replaced in turn."""
    received, answer_now = threading.Event(), threading.Event()
    port = free_port()
    pid_file = tmp_path / "twistd.pid"
    with ScriptedServer(delayed_response(received, answer_now)) as server:
        text = config(server.address, f"127.0.0.1:{port}")
        with (
            run_configured_balancer(tmp_path, text, port, argv=COMMANDS[1]) as balancer,
            connect(port) as client,
        ):
            client.sendall(GET.replace(b"/ ", b"/slow "))
            assert received.wait(TIMEOUT)
            balancer.send(signal.SIGUSR2)
            wait_until(lambda: balancer.has_logged("draining; send the signal again"))
            second = int(pid_file.read_text())
            old_file = tmp_path / "twistd.pid.old"
            assert (balancer.children(), old_file.read_text()) == (
                [second],
                str(balancer.process.pid),
            )
            os.kill(second, then)
            wait_until(lambda: balancer.has_logged("the new process exited: "))
            assert not balancer.has_logged("hot restart failed")
            with contextlib.ExitStack() as stack:
                if then == signal.SIGTERM:
                    assert not pid_file.exists()
                    stack.enter_context(
                        run_configured_balancer(tmp_path, text, port, argv=COMMANDS[1])
                    )
                else:
                    assert not old_file.exists()
                    assert responds(port)
                newest = pid_file.read_text()
                assert newest not in (str(second), str(balancer.process.pid))
                answer_now.set()
                assert read_all(client).endswith(b"late")
                assert balancer.wait() == 0
                assert pid_file.read_text() == newest
                assert not old_file.exists()
            assert "#error" not in balancer.log.read_text(), balancer.log.read_text()


def test_failed_hot_restart(tmp_path: Path, server_one: ScriptedServer) -> None:
    """After a failed hot restart the old process serves on, and owns sockets and PID file."""
    port = free_port()
    path = str(tmp_path / "socket")
    text = config(server_one.address, f"127.0.0.1:{port}", f"unix:{path}")
    with run_configured_balancer(tmp_path, text, port, path, argv=COMMANDS[1]) as balancer:
        with ScriptedServer(respond_with("taken")) as taken:
            for number, invalid in enumerate(
                ("nonsense", text.replace(f'"unix:{path}"', f'"unix:{path}", "{taken.address}"')), 1
            ):
                balancer.config.write_text(invalid)
                balancer.send(signal.SIGUSR2)
                wait_until(
                    partial(
                        balancer.has_logged, "hot restart failed: the new process exited", number
                    )
                )
                assert responds(port)
                assert responds(path)
        assert (tmp_path / "twistd.pid").read_text() == str(balancer.process.pid)
        # The old process still unlinks sockets that a reload removes.
        balancer.config.write_text(text.replace(f', "unix:{path}"', ""))
        balancer.send(signal.SIGHUP)
        wait_until(lambda: not os.path.exists(path))
        balancer.send(signal.SIGUSR2)
        assert balancer.wait() == 0
        assert responds(port)


def test_hot_restart_with_untransferable_socket(tmp_path: Path, server_one: ScriptedServer) -> None:
    """A hot restart also works with `haproxy:tcp:`, whose socket cannot be transferred."""
    port = free_port()
    text = config(server_one.address, f"127.0.0.1:{port}", f"haproxy:tcp:{free_port()}")
    with run_configured_balancer(tmp_path, text, port) as balancer:
        balancer.send(signal.SIGUSR2)
        assert balancer.wait() == 0
        assert responds(port)


def test_old_process_does_not_notify_stopping(tmp_path: Path, server_one: ScriptedServer) -> None:
    """In a hot restart the new process notifies READY=1; the old one does not notify STOPPING=1."""
    path = str(tmp_path / "notify")
    manager = NotifySocket(path)
    port = free_port()
    text = config(server_one.address, f"127.0.0.1:{port}")
    with (
        manager.socket,
        run_configured_balancer(
            tmp_path, text, port, environment={"NOTIFY_SOCKET": path}
        ) as balancer,
    ):
        manager.receive()
        balancer.send(signal.SIGUSR2)
        ready = manager.receive()
        assert ready[0] == "READY=1"
        assert ready[1] != f"MAINPID={balancer.process.pid}"
        assert balancer.wait() == 0
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.receive()


def test_stale_socket_of_new_process_is_replaced(
    tmp_path: Path, server_one: ScriptedServer
) -> None:
    """A Unix socket left by a killed new process is replaced at the next start."""
    path = str(tmp_path / "socket")
    text = config(server_one.address, f"unix:{path}")
    with run_configured_balancer(tmp_path, text, path) as balancer:
        balancer.send(signal.SIGUSR2)
        wait_until(balancer.children)
        assert balancer.wait() == 0
    assert os.path.exists(path)
    with run_configured_balancer(tmp_path, text, path):
        pass
