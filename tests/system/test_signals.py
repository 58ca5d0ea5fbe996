"""Signals, service managers and successors, with the program as it is started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.processes import (
    TIMEOUT,
    TWISTD,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    respond_with,
    wait_until,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

COMMANDS = (
    (TWISTD, "-n", "--pidfile=", "balancebeam"),
    (TWISTD, "-n", "balancebeam"),
    (str(Path(sys.executable).with_name("balancebeam")),),
    (sys.executable, "-m", "balancebeam"),
)


def get(address: int | str, request: bytes = GET_CLOSE) -> bytes:
    with connect(address) as client:
        client.sendall(request)
        return read_all(client)


def connect(address: int | str) -> socket.socket:
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address), TIMEOUT)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(TIMEOUT)
    client.connect(address)
    return client


def responds(address: int | str) -> bool:
    with contextlib.suppress(OSError):
        return get(address).startswith(b"HTTP/1.1 200 ")
    return False


class ConfiguredBalancer:
    """A balancer of which the environment is known, too."""

    def __init__(
        self,
        folder: Path,
        text: str,
        argv: Sequence[str] = COMMANDS[0],
        environment: dict[str, str] | None = None,
        fds: Sequence[int] = (),
        shell: str = "",
    ) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(text)
        self.log = folder / "output.txt"
        command = [*argv, "--config", str(self.config)]
        if shell:
            command = ["/bin/bash", "-c", shell + ' exec "$@"', "sh", *command]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                pass_fds=fds,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def has_logged(self, text: str, times: int = 1) -> bool:
        return self.log.read_text().count(text) >= times

    def wait(self) -> int:
        return self.process.wait(TIMEOUT)

    def status(self) -> int | None:
        return self.process.poll()

    def children(self) -> list[int]:
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def kill(self) -> None:
        """Leave nobody of the session behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(TIMEOUT)


@contextlib.contextmanager
def run_configured_balancer(
    folder: Path, text: str, *addresses: int | str, **more: object
) -> Iterator[ConfiguredBalancer]:
    balancer = ConfiguredBalancer(folder, text, **more)  # type: ignore[arg-type]
    try:
        for place in addresses:
            wait_until(partial(_responds_or_exited, balancer, place))
        assert balancer.status() is None, balancer.log.read_text()
        yield balancer
    finally:
        balancer.kill()
    assert "Traceback" not in balancer.log.read_text(), balancer.log.read_text()


def _responds_or_exited(balancer: ConfiguredBalancer, address: int | str) -> bool:
    return responds(address) or balancer.status() is not None


def config(server: str, *binds: str, before: str = "", after: str = "") -> str:
    listed = ", ".join(f'"{bind}"' for bind in binds)
    return (
        f'{before}\n[[frontend]]\nname = "web"\nbind = [{listed}]\npool = "app"\n'
        f'[[pool]]\nname = "app"\nupstreams = ["{server}"]\n{after}\n'
    )


@pytest.fixture
def one() -> Iterator[ScriptedServer]:
    with ScriptedServer(respond_with("one")) as server:
        yield server


def delayed_response(
    asked: threading.Event, answer_now: threading.Event
) -> Callable[[socket.socket, int], None]:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"

    def serve(connection: socket.socket, number: int) -> None:
        while True:
            head, _ = read_head(connection)
            if head.startswith(b"GET /slow"):
                asked.set()
                answer_now.wait(TIMEOUT)
            connection.sendall(page)

    return serve


# Ends.


def test_sigterm_drains(tmp_path: Path) -> None:
    asked, answer_now = threading.Event(), threading.Event()
    port, admin = free_port(), free_port()
    with ScriptedServer(delayed_response(asked, answer_now)) as server:
        after = f'[admin]\nbind = "127.0.0.1:{admin}"'
        text = config(server.address, f"127.0.0.1:{port}", after=after)
        with run_configured_balancer(tmp_path, text, port) as balancer, connect(port) as client:
            with connect(port) as idle:
                idle.sendall(GET)
                read_head(idle)
                client.sendall(GET.replace(b"/ ", b"/slow "))
                assert asked.wait(TIMEOUT)
                balancer.send(signal.SIGTERM)
                began = time.monotonic()
                assert read_all(idle) in (b"", b"late")
                assert time.monotonic() - began < 4
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            assert b" 503 " in get(admin, GET_CLOSE.replace(b"/ ", b"/readyz "))
            assert b" 200 " in get(admin, GET_CLOSE.replace(b"/ ", b"/healthz "))
            answer_now.set()
            answer = read_all(client)
            assert answer.endswith(b"late")
            assert b"Connection: close\r\n" in answer
            assert balancer.wait() == 0


def test_sigint_with_nobody_ends_at_once(tmp_path: Path, one: ScriptedServer) -> None:
    port = free_port()
    with run_configured_balancer(
        tmp_path, config(one.address, f"127.0.0.1:{port}"), port
    ) as balancer:
        began = time.monotonic()
        balancer.send(signal.SIGINT)
        assert balancer.wait() == 0
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("way", ["deadline", "again", "never"])
def test_those_who_do_not_leave_are_cut(tmp_path: Path, one: ScriptedServer, way: str) -> None:
    port = free_port()
    limit = {"deadline": 1.5, "again": 30, "never": 0}[way]
    text = config(one.address, f"127.0.0.1:{port}", before=f"drain_timeout = {limit}")
    text = text.replace('name = "web"', 'name = "web"\nmode = "tcp"')
    with (
        run_configured_balancer(tmp_path, text) as balancer,
        wait_until(lambda: _connected(port)) as client,
    ):
        client.sendall(GET)
        read_head(client)
        balancer.send(signal.SIGTERM)
        if way != "never":
            wait_until(lambda: balancer.has_logged("draining"))
            client.sendall(GET)
            read_head(client)
        if way == "again":
            balancer.send(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            read_all(client)
        assert balancer.wait() == 0


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 203.0.113.1 192.0.2.1 1 2\r\n"])
@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_who_is_in_the_queue_is_served(
    tmp_path: Path, one: ScriptedServer, header: bytes, place: str
) -> None:
    port: int | str = free_port() if place == "tcp" else str(tmp_path / "socket")
    bind = f"127.0.0.1:{port}" if place == "tcp" else f"unix:{port}"
    text = config(one.address, f"haproxy:{bind}" if header else bind)
    with run_configured_balancer(tmp_path, text) as balancer:
        # Who is answered knows that the reactor runs, and has its signals.
        with wait_until(lambda: _connected(port)) as first:
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


def _connected(address: int | str) -> socket.socket | None:
    with contextlib.suppress(OSError):
        return connect(address)
    return None


def test_sigterm_while_it_starts(tmp_path: Path, one: ScriptedServer) -> None:
    text = config(one.address, f"127.0.0.1:{free_port()}")
    for delay in (0.1, 0.5):
        with run_configured_balancer(tmp_path, text) as balancer:
            time.sleep(delay)
            balancer.send(signal.SIGTERM)
            assert balancer.wait() in (0, -signal.SIGTERM)


# What the service manager hears and hands over.


class NotifySocket:
    """A service manager's socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)

    def receive(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(tmp_path: Path, one: ScriptedServer, abstract: bool) -> None:
    path = f"@balancebeam-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = NotifySocket(path)
    port = free_port()
    text = config(one.address, f"127.0.0.1:{port}")
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
            wait_until(lambda: _established(port))
            balancer.send(signal.SIGTERM)
            assert manager.receive()[0] == "STOPPING=1"
            # A reload has no meaning any more, and must not look like a start.
            balancer.send(signal.SIGHUP)
            wait_until(lambda: balancer.has_logged("reload rejected: draining"))
            balancer.send(signal.SIGTERM)
            assert balancer.wait() == 0
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.receive()


def _established(port: int) -> bool:
    return f":{port:04X} " in Path("/proc/net/tcp").read_text()


SYSTEMD = "export LISTEN_PID=$$ LISTEN_FDS=%d;"


def start_with_sockets(listeners: Sequence[socket.socket], count: int = 0) -> dict[str, object]:
    """Hand over sockets as descriptors 3 and so on, as systemd does."""
    moves = "".join(
        f" exec {3 + number}<&{listener.fileno()} {listener.fileno()}<&-;"
        for number, listener in enumerate(listeners)
    )
    return {
        "shell": SYSTEMD % (count or len(listeners)) + moves,
        "fds": [listener.fileno() for listener in listeners],
    }


def high(listener: socket.socket) -> socket.socket:
    """The same with a descriptor that no other has to make way for."""
    descriptor = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 300)
    listener.close()
    return socket.socket(fileno=descriptor)


def test_sockets_of_the_manager(tmp_path: Path, one: ScriptedServer) -> None:
    path = str(tmp_path / "socket")
    tcp = high(socket.create_server(("127.0.0.1", 0)))
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    os.chmod(path, 0o600)
    local.listen()
    local = high(local)
    unwanted = high(socket.create_server(("127.0.0.1", 0)))
    plain = high(socket.socket())
    port, nobody = tcp.getsockname()[1], unwanted.getsockname()[1]
    text = config(one.address, f"127.0.0.1:{port}", f"unix:{path}")
    handed = start_with_sockets([tcp, local, unwanted, plain])
    with (
        tcp,
        local,
        plain,
        run_configured_balancer(tmp_path, text, port, path, **handed) as balancer,
    ):
        assert balancer.has_logged("ignoring inherited descriptor 6: not a listening socket")
        assert balancer.has_logged(f"closing inherited socket 127.0.0.1:{nobody}: not configured")
        unwanted.close()
        with pytest.raises(ConnectionRefusedError):
            connect(nobody)
        assert os.stat(path).st_mode & 0o777 == 0o600
        balancer.send(signal.SIGTERM)
        assert balancer.wait() == 0
        # They are still the manager's.
        connect(port).close()
        connect(path).close()


def test_a_socket_for_both_kinds_of_addresses(tmp_path: Path, one: ScriptedServer) -> None:
    both = high(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    port = both.getsockname()[1]
    text = config(one.address, f"0.0.0.0:{port}")
    with both, run_configured_balancer(tmp_path, text, port, **start_with_sockets([both])):
        pass


def test_sockets_for_another_process(tmp_path: Path, one: ScriptedServer) -> None:
    mine = high(socket.create_server(("127.0.0.1", 0)))
    port = free_port()
    more = {"environment": {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, "fds": [mine.fileno()]}
    with (
        mine,
        run_configured_balancer(
            tmp_path, config(one.address, f"127.0.0.1:{port}"), port, **more
        ) as it,
    ):
        assert not it.has_logged("inherited descriptor")


# Successors.


@pytest.mark.parametrize("way", COMMANDS)
def test_a_successor(tmp_path: Path, one: ScriptedServer, way: Sequence[str]) -> None:
    port, plain, admin, wide = (free_port() for _ in range(4))
    path = str(tmp_path / "socket")
    binds = (f"127.0.0.1:{port}", f"unix:{path}", f"tcp:{plain}:interface=127.0.0.1")
    before = f'state = "{tmp_path / "state.json"}"'
    after = f'[admin]\nbind = "127.0.0.1:{admin}"\n[[frontend]]\nname = "more"\npool = "app"\n'
    after += f'bind = ["0.0.0.0:{wide}", "haproxy:[::1]:{wide}"]\n'
    text = config(one.address, *binds, before=before, after=after)
    failed: list[str] = []
    done = threading.Event()
    with run_configured_balancer(tmp_path, text, port, path, plain, wide, argv=way) as balancer:
        pid_file = tmp_path / "twistd.pid"
        assert pid_file.exists() == (way == COMMANDS[1])

        def ask() -> None:
            while not done.is_set():
                for place in (port, path, plain, wide):
                    try:
                        if not get(place).endswith(b"one"):
                            failed.append("cut")
                    except OSError as error:
                        failed.append(repr(error))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            balancer.send(signal.SIGUSR2)
            wait_until(lambda: balancer.has_logged("hot restart: starting a new process"))
            balancer.send(signal.SIGUSR2)
            wait_until(lambda: balancer.has_logged("hot restart ignored: already restarting"))
            (successor,) = balancer.children()
            assert balancer.wait() == 0
            for place in (port, path, plain, wide):
                assert responds(place)
            assert b" 200 " in get(admin, GET_CLOSE.replace(b"/ ", b"/readyz "))
            if way == COMMANDS[1]:
                assert pid_file.read_text() == str(successor)
                assert not (tmp_path / "twistd.pid.old").exists()
        finally:
            done.set()
            asking.join(TIMEOUT)
        assert not failed, failed[:3]
        # What it took over is its own now.
        os.kill(successor, signal.SIGTERM)
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


def test_a_successor_that_fails_harms_nobody(tmp_path: Path, one: ScriptedServer) -> None:
    port = free_port()
    path = str(tmp_path / "socket")
    text = config(one.address, f"127.0.0.1:{port}", f"unix:{path}")
    with run_configured_balancer(tmp_path, text, port, path, argv=COMMANDS[1]) as balancer:
        with ScriptedServer(respond_with("taken")) as other:
            for number, bad in enumerate(
                ("nonsense", text.replace(f'"unix:{path}"', f'"unix:{path}", "{other.address}"')), 1
            ):
                balancer.config.write_text(bad)
                balancer.send(signal.SIGUSR2)
                wait_until(
                    partial(
                        balancer.has_logged, "hot restart failed: the new process exited", number
                    )
                )
                assert responds(port)
                assert responds(path)
        assert (tmp_path / "twistd.pid").read_text() == str(balancer.process.pid)
        # Sockets are removed as before.
        balancer.config.write_text(text.replace(f', "unix:{path}"', ""))
        balancer.send(signal.SIGHUP)
        wait_until(lambda: not os.path.exists(path))
        balancer.send(signal.SIGUSR2)
        assert balancer.wait() == 0
        assert responds(port)


def test_what_cannot_be_handed_over(tmp_path: Path, one: ScriptedServer) -> None:
    port = free_port()
    text = config(one.address, f"127.0.0.1:{port}", f"haproxy:tcp:{free_port()}")
    with run_configured_balancer(tmp_path, text, port) as balancer:
        balancer.send(signal.SIGUSR2)
        assert balancer.wait() == 0
        assert responds(port)


def test_the_manager_is_not_told_that_it_ends(tmp_path: Path, one: ScriptedServer) -> None:
    path = str(tmp_path / "notify")
    manager = NotifySocket(path)
    port = free_port()
    text = config(one.address, f"127.0.0.1:{port}")
    with (
        manager.socket,
        run_configured_balancer(
            tmp_path, text, port, environment={"NOTIFY_SOCKET": path}
        ) as balancer,
    ):
        manager.receive()
        balancer.send(signal.SIGUSR2)
        heard = manager.receive()
        assert heard[0] == "READY=1"
        assert heard[1] != f"MAINPID={balancer.process.pid}"
        assert balancer.wait() == 0
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.receive()


def test_a_dead_successors_socket_is_replaced(tmp_path: Path, one: ScriptedServer) -> None:
    path = str(tmp_path / "socket")
    text = config(one.address, f"unix:{path}")
    with run_configured_balancer(tmp_path, text, path) as balancer:
        balancer.send(signal.SIGUSR2)
        wait_until(balancer.children)
        assert balancer.wait() == 0
    assert os.path.exists(path)
    with run_configured_balancer(tmp_path, text, path):
        pass
