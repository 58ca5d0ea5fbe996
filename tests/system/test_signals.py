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
    LIMIT,
    TWISTD,
    Server,
    answering,
    free_port,
    read_all,
    read_head,
    until,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

WAYS = (
    (TWISTD, "-n", "--pidfile=", "balancebeam"),
    (TWISTD, "-n", "balancebeam"),
    (str(Path(sys.executable).with_name("balancebeam")),),
    (sys.executable, "-m", "balancebeam"),
)


def get(place: int | str, request: bytes = LAST) -> bytes:
    with connect(place) as client:
        client.sendall(request)
        return read_all(client)


def connect(place: int | str) -> socket.socket:
    if isinstance(place, int):
        return socket.create_connection(("127.0.0.1", place), LIMIT)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT)
    client.connect(place)
    return client


def answers(place: int | str) -> bool:
    with contextlib.suppress(OSError):
        return get(place).startswith(b"HTTP/1.1 200 ")
    return False


class Running:
    """A balancer of which the environment is known, too."""

    def __init__(
        self,
        folder: Path,
        text: str,
        way: Sequence[str] = WAYS[0],
        environment: dict[str, str] | None = None,
        fds: Sequence[int] = (),
        shell: str = "",
    ) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.config.write_text(text)
        self.log = folder / "output.txt"
        command = [*way, "--config", str(self.config)]
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

    def said(self, text: str, times: int = 1) -> bool:
        return self.log.read_text().count(text) >= times

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def status(self) -> int | None:
        return self.process.poll()

    def children(self) -> list[int]:
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def end(self) -> None:
        """Leave nobody of the session behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)


@contextlib.contextmanager
def running(folder: Path, text: str, *places: int | str, **more: object) -> Iterator[Running]:
    balancer = Running(folder, text, **more)  # type: ignore[arg-type]
    try:
        for place in places:
            until(partial(_answers_or_ended, balancer, place))
        assert balancer.status() is None, balancer.log.read_text()
        yield balancer
    finally:
        balancer.end()
    assert "Traceback" not in balancer.log.read_text(), balancer.log.read_text()


def _answers_or_ended(balancer: Running, place: int | str) -> bool:
    return answers(place) or balancer.status() is not None


def config(server: str, *binds: str, before: str = "", after: str = "") -> str:
    listed = ", ".join(f'"{bind}"' for bind in binds)
    return (
        f'{before}\n[[frontend]]\nname = "web"\nbind = [{listed}]\npool = "app"\n'
        f'[[pool]]\nname = "app"\nupstreams = ["{server}"]\n{after}\n'
    )


@pytest.fixture
def one() -> Iterator[Server]:
    with Server(answering("one")) as server:
        yield server


def late(
    asked: threading.Event, answer_now: threading.Event
) -> Callable[[socket.socket, int], None]:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"

    def serve(connection: socket.socket, number: int) -> None:
        while True:
            head, _ = read_head(connection)
            if head.startswith(b"GET /slow"):
                asked.set()
                answer_now.wait(LIMIT)
            connection.sendall(page)

    return serve


# Ends.


def test_sigterm_drains(tmp_path: Path) -> None:
    asked, answer_now = threading.Event(), threading.Event()
    port, admin = free_port(), free_port()
    with Server(late(asked, answer_now)) as server:
        after = f'[admin]\nbind = "127.0.0.1:{admin}"'
        text = config(server.address, f"127.0.0.1:{port}", after=after)
        with running(tmp_path, text, port) as balancer, connect(port) as client:
            with connect(port) as idle:
                idle.sendall(GET)
                read_head(idle)
                client.sendall(GET.replace(b"/ ", b"/slow "))
                assert asked.wait(LIMIT)
                balancer.send(signal.SIGTERM)
                began = time.monotonic()
                assert read_all(idle) in (b"", b"late")
                assert time.monotonic() - began < 4
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            assert b" 503 " in get(admin, LAST.replace(b"/ ", b"/readyz "))
            assert b" 200 " in get(admin, LAST.replace(b"/ ", b"/healthz "))
            answer_now.set()
            answer = read_all(client)
            assert answer.endswith(b"late")
            assert b"Connection: close\r\n" in answer
            assert balancer.wait() == 0


def test_sigint_with_nobody_ends_at_once(tmp_path: Path, one: Server) -> None:
    port = free_port()
    with running(tmp_path, config(one.address, f"127.0.0.1:{port}"), port) as balancer:
        began = time.monotonic()
        balancer.send(signal.SIGINT)
        assert balancer.wait() == 0
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("way", ["deadline", "again", "never"])
def test_those_who_do_not_leave_are_cut(tmp_path: Path, one: Server, way: str) -> None:
    port = free_port()
    limit = {"deadline": 1.5, "again": 30, "never": 0}[way]
    text = config(one.address, f"127.0.0.1:{port}", before=f"drain_timeout = {limit}")
    text = text.replace('name = "web"', 'name = "web"\nmode = "tcp"')
    with running(tmp_path, text) as balancer, until(lambda: _connected(port)) as client:
        client.sendall(GET)
        read_head(client)
        balancer.send(signal.SIGTERM)
        if way != "never":
            until(lambda: balancer.said("draining"))
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
    tmp_path: Path, one: Server, header: bytes, place: str
) -> None:
    port: int | str = free_port() if place == "tcp" else str(tmp_path / "socket")
    bind = f"127.0.0.1:{port}" if place == "tcp" else f"unix:{port}"
    text = config(one.address, f"haproxy:{bind}" if header else bind)
    with running(tmp_path, text) as balancer:
        # Who is answered knows that the reactor runs, and has its signals.
        with until(lambda: _connected(port)) as first:
            first.sendall(header + LAST)
            assert read_all(first).endswith(b"one")
        balancer.send(signal.SIGSTOP)
        clients = [connect(port) for _ in range(150)]
        for client in clients[:75]:
            client.sendall(header + LAST)
        balancer.send(signal.SIGTERM)
        balancer.send(signal.SIGCONT)
        until(lambda: balancer.said("draining"))
        for client in clients[75:]:
            client.sendall(header + LAST)
        for client in clients:
            with client:
                assert read_all(client).endswith(b"one")
        assert balancer.wait() == 0


def _connected(place: int | str) -> socket.socket | None:
    with contextlib.suppress(OSError):
        return connect(place)
    return None


def test_sigterm_while_it_starts(tmp_path: Path, one: Server) -> None:
    text = config(one.address, f"127.0.0.1:{free_port()}")
    for delay in (0.1, 0.5):
        with running(tmp_path, text) as balancer:
            time.sleep(delay)
            balancer.send(signal.SIGTERM)
            assert balancer.wait() in (0, -signal.SIGTERM)


# What the service manager hears and hands over.


class Manager:
    """A service manager's socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(LIMIT)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)

    def hear(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(tmp_path: Path, one: Server, abstract: bool) -> None:
    path = f"@balancebeam-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = Manager(path)
    port = free_port()
    text = config(one.address, f"127.0.0.1:{port}")
    with (
        manager.socket,
        running(tmp_path, text, port, environment={"NOTIFY_SOCKET": path}) as balancer,
    ):
        ready = manager.hear()
        assert ready[:2] == ["READY=1", f"MAINPID={balancer.process.pid}"]
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        balancer.send(signal.SIGHUP)
        reloading, when = manager.hear()
        assert reloading == "RELOADING=1"
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert before <= int(when.partition("MONOTONIC_USEC=")[2]) <= now
        assert manager.hear()[2] == "STATUS=Balancing."
        balancer.config.write_text("nonsense")
        balancer.send(signal.SIGHUP)
        assert manager.hear()[0] == "RELOADING=1"
        assert manager.hear()[2] == "STATUS=Balancing; the last reload was refused."
        with connect(port) as client:
            client.sendall(GET[:10])
            until(lambda: _established(port))
            balancer.send(signal.SIGTERM)
            assert manager.hear()[0] == "STOPPING=1"
            # A reload has no meaning any more, and must not look like a start.
            balancer.send(signal.SIGHUP)
            until(lambda: balancer.said("not reloaded: it is stopping"))
            balancer.send(signal.SIGTERM)
            assert balancer.wait() == 0
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.hear()


def _established(port: int) -> bool:
    return f":{port:04X} " in Path("/proc/net/tcp").read_text()


SYSTEMD = "export LISTEN_PID=$$ LISTEN_FDS=%d;"


def inherit(listeners: Sequence[socket.socket], count: int = 0) -> dict[str, object]:
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


def test_sockets_of_the_manager(tmp_path: Path, one: Server) -> None:
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
    handed = inherit([tcp, local, unwanted, plain])
    with tcp, local, plain, running(tmp_path, text, port, path, **handed) as balancer:
        assert balancer.said("descriptor 6 is no socket that listens")
        assert balancer.said(f"nobody is to listen at 127.0.0.1:{nobody} any more")
        unwanted.close()
        with pytest.raises(ConnectionRefusedError):
            connect(nobody)
        assert os.stat(path).st_mode & 0o777 == 0o600
        balancer.send(signal.SIGTERM)
        assert balancer.wait() == 0
        # They are still the manager's.
        connect(port).close()
        connect(path).close()


def test_a_socket_for_both_kinds_of_addresses(tmp_path: Path, one: Server) -> None:
    both = high(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    port = both.getsockname()[1]
    text = config(one.address, f"0.0.0.0:{port}")
    with both, running(tmp_path, text, port, **inherit([both])):
        pass


def test_sockets_for_another_process(tmp_path: Path, one: Server) -> None:
    mine = high(socket.create_server(("127.0.0.1", 0)))
    port = free_port()
    more = {"environment": {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, "fds": [mine.fileno()]}
    with mine, running(tmp_path, config(one.address, f"127.0.0.1:{port}"), port, **more) as it:
        assert not it.said("descriptor")


# Successors.


@pytest.mark.parametrize("way", WAYS)
def test_a_successor(tmp_path: Path, one: Server, way: Sequence[str]) -> None:
    port, plain, admin, wide = (free_port() for _ in range(4))
    path = str(tmp_path / "socket")
    binds = (f"127.0.0.1:{port}", f"unix:{path}", f"tcp:{plain}:interface=127.0.0.1")
    before = f'state = "{tmp_path / "state.json"}"'
    after = f'[admin]\nbind = "127.0.0.1:{admin}"\n[[frontend]]\nname = "more"\npool = "app"\n'
    after += f'bind = ["0.0.0.0:{wide}", "haproxy:[::1]:{wide}"]\n'
    text = config(one.address, *binds, before=before, after=after)
    failed: list[str] = []
    done = threading.Event()
    with running(tmp_path, text, port, path, plain, wide, way=way) as balancer:
        pid_file = tmp_path / "twistd.pid"
        assert pid_file.exists() == (way == WAYS[1])

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
            until(lambda: balancer.said("starting a successor"))
            balancer.send(signal.SIGUSR2)
            until(lambda: balancer.said("there is a successor already"))
            (successor,) = balancer.children()
            assert balancer.wait() == 0
            for place in (port, path, plain, wide):
                assert answers(place)
            assert b" 200 " in get(admin, LAST.replace(b"/ ", b"/readyz "))
            if way == WAYS[1]:
                assert pid_file.read_text() == str(successor)
                assert not (tmp_path / "twistd.pid.old").exists()
        finally:
            done.set()
            asking.join(LIMIT)
        assert not failed, failed[:3]
        # What it took over is its own now.
        os.kill(successor, signal.SIGTERM)
        until(lambda: not os.path.exists(path))
        until(lambda: not pid_file.exists())


def test_a_successor_that_fails_harms_nobody(tmp_path: Path, one: Server) -> None:
    port = free_port()
    path = str(tmp_path / "socket")
    text = config(one.address, f"127.0.0.1:{port}", f"unix:{path}")
    with running(tmp_path, text, port, path, way=WAYS[1]) as balancer:
        with Server(answering("taken")) as other:
            for number, bad in enumerate(
                ("nonsense", text.replace(f'"unix:{path}"', f'"unix:{path}", "{other.address}"')), 1
            ):
                balancer.config.write_text(bad)
                balancer.send(signal.SIGUSR2)
                until(partial(balancer.said, "the successor ended", number))
                assert answers(port)
                assert answers(path)
        assert (tmp_path / "twistd.pid").read_text() == str(balancer.process.pid)
        # Sockets are removed as before.
        balancer.config.write_text(text.replace(f', "unix:{path}"', ""))
        balancer.send(signal.SIGHUP)
        until(lambda: not os.path.exists(path))
        balancer.send(signal.SIGUSR2)
        assert balancer.wait() == 0
        assert answers(port)


def test_what_cannot_be_handed_over(tmp_path: Path, one: Server) -> None:
    port = free_port()
    text = config(one.address, f"127.0.0.1:{port}", f"haproxy:tcp:{free_port()}")
    with running(tmp_path, text, port) as balancer:
        balancer.send(signal.SIGUSR2)
        assert balancer.wait() == 0
        assert answers(port)


def test_the_manager_is_not_told_that_it_ends(tmp_path: Path, one: Server) -> None:
    path = str(tmp_path / "notify")
    manager = Manager(path)
    port = free_port()
    text = config(one.address, f"127.0.0.1:{port}")
    with (
        manager.socket,
        running(tmp_path, text, port, environment={"NOTIFY_SOCKET": path}) as balancer,
    ):
        manager.hear()
        balancer.send(signal.SIGUSR2)
        heard = manager.hear()
        assert heard[0] == "READY=1"
        assert heard[1] != f"MAINPID={balancer.process.pid}"
        assert balancer.wait() == 0
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.hear()


def test_a_dead_successors_socket_is_replaced(tmp_path: Path, one: Server) -> None:
    path = str(tmp_path / "socket")
    text = config(one.address, f"unix:{path}")
    with running(tmp_path, text, path) as balancer:
        balancer.send(signal.SIGUSR2)
        until(balancer.children)
        assert balancer.wait() == 0
    assert os.path.exists(path)
    with running(tmp_path, text, path):
        pass
