"""The program, started as its users start it, over real sockets."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
import treq
from twisted.internet.threads import deferToThread
from twisted.web.client import HTTPConnectionPool

from tests.helpers.processes import (
    TIMEOUT,
    TWISTD,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    respond_with,
    run_balancer,
    wait_until,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(port: int, request: bytes = GET) -> bytes:
    """One request on a connection of its own; all that comes back."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return read_all(client)


def test_balances(tmp_path: Path) -> None:
    with ScriptedServer(respond_with("one")) as one, ScriptedServer(respond_with("two")) as two:
        upstreams = ("--upstream", one.address, "--upstream", two.address)
        with run_balancer(tmp_path, *upstreams) as running:
            bodies = [get(running.port).partition(b"\r\n\r\n")[2] for _ in range(6)]
        assert bodies == [b"one", b"two"] * 3


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_demo_with_treq(tmp_path: Path) -> None:
    with run_balancer(tmp_path, "--demo", "3") as running:
        agent_pool = HTTPConnectionPool(_reactor(), persistent=False)
        texts = set()
        for _ in range(6):
            response = await treq.get(f"http://127.0.0.1:{running.port}/x?y", pool=agent_pool)
            assert response.code == 200
            texts.add(await response.text())
        assert texts == {
            f"Hello from demo server {number}. Request: GET /x?y\n" for number in (1, 2, 3)
        }
        posted = await treq.post(
            f"http://127.0.0.1:{running.port}/", data=b"x" * 300000, pool=agent_pool
        )
        assert posted.code == 200
        await posted.content()
        # The processes are waited for in a thread, so that the reactor runs on.
        await deferToThread(running.stop)


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/s"
    (tmp_path / "front").mkdir()
    with ScriptedServer(respond_with("one")) as one:
        with run_balancer(tmp_path, "--upstream", one.address, "--bind", path) as running:
            wait_until((tmp_path / "s").exists)
            with run_balancer(tmp_path / "front", "--upstream", path) as front:
                assert get(front.port).endswith(b"one")
            assert running.process.poll() is None
    assert not (tmp_path / "s").exists()


def test_endpoint_description(tmp_path: Path) -> None:
    port = free_port()
    with ScriptedServer(respond_with("one")) as one:
        bind = ("--bind", f"tcp:{port}:interface=127.0.0.1")
        with run_balancer(tmp_path, "--upstream", one.address, *bind):
            assert get(port).endswith(b"one")


def test_gigabyte_through_a_slow_reader_costs_a_bounded_buffer(tmp_path: Path) -> None:
    # A reader that stops altogether is as slow as one can be: what the
    # balancer has taken by then is what it buffers for any slow reader.
    taken = [0]

    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        piece = b"x" * 65536
        connection.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while taken[0] < 1 << 30:
                taken[0] += connection.send(piece)

    with (
        ScriptedServer(serve) as server,
        run_balancer(tmp_path, "--upstream", server.address) as running,
    ):
        before = running.resident_bytes()
        with running.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.sendall(GET)
            client.recv(1000)
            last = -1
            while taken[0] != last:
                last = taken[0]
                threading.Event().wait(0.5)
            assert running.resident_bytes() - before < 4 << 20
            # Kernel buffers hold a few MB on either side; the rest waits.
            assert taken[0] < 64 << 20


def test_large_bodies_both_ways(tmp_path: Path) -> None:
    size = 30 << 20

    def serve(connection: socket.socket, number: int) -> None:
        _, rest = read_head(connection)
        digest = hashlib.sha256(rest)
        left = size - len(rest)
        while left:
            data = connection.recv(1 << 20)
            digest.update(data)
            left -= len(data)
        body = digest.hexdigest().encode() + b"y" * size
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with (
        ScriptedServer(serve) as server,
        run_balancer(tmp_path, "--upstream", server.address) as running,
    ):
        body = os.urandom(1 << 20) * 30
        request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
        answer = get(running.port, request + body)
        rest = answer.partition(b"\r\n\r\n")[2]
        assert rest[:64] == hashlib.sha256(body).hexdigest().encode()
        assert rest[64:] == b"y" * size


def test_server_that_refuses_and_one_that_dies(tmp_path: Path) -> None:
    dead = free_port()
    with ScriptedServer(respond_with("alive")) as alive:
        upstreams = ("--upstream", f"127.0.0.1:{dead}", "--upstream", alive.address)
        with run_balancer(tmp_path, *upstreams) as running:
            for _ in range(10):
                assert get(running.port).endswith(b"alive")
            text = running.output.read_text()
            assert text.count("ejected for 10 s") == 1, text
    # Both are dead now, and a client is told so.
    with run_balancer(tmp_path, *upstreams) as running:
        assert get(running.port).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


def test_cut_body_is_seen_by_the_client(tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        threading.Event().wait(0.2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with (
        ScriptedServer(serve) as server,
        run_balancer(tmp_path, "--upstream", server.address) as running,
    ):
        with running.connect() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                read_all(client)
        assert not get(running.port).endswith(b"0\r\n\r\n")


def test_client_that_leaves_stops_its_upstream_request(tmp_path: Path) -> None:
    stopped = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        try:
            if not connection.recv(1):
                stopped.set()
        except ConnectionResetError:
            stopped.set()

    with (
        ScriptedServer(serve) as server,
        run_balancer(tmp_path, "--upstream", server.address) as running,
    ):
        client = running.connect()
        client.sendall(GET)
        wait_until(lambda: server.connections)
        client.close()
        assert stopped.wait(5)


def test_half_closed_client_gets_its_answer(tmp_path: Path) -> None:
    with ScriptedServer(respond_with("one")) as one:
        with (
            run_balancer(tmp_path, "--upstream", one.address) as running,
            running.connect() as client,
        ):
            client.sendall(GET)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client).endswith(b"one")


def test_tunnel(tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        data = read_all(connection)
        connection.sendall(data)

    with (
        ScriptedServer(serve) as server,
        run_balancer(tmp_path, "--upstream", server.address) as running,
    ):
        with running.connect() as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
            )
            head, rest = read_head(client)
            assert head.startswith(b"HTTP/1.1 101 ")
            sent = os.urandom(3 << 20)
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert rest + read_all(client) == sent


def test_bad_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        for options, words in (
            ([], "no server"),
            (["--upstream", "nonsense"], "invalid address 'nonsense'"),
            (["--demo", "1", "--bind", used], f"--bind {used}: address already in use"),
            (["--demo", "1", "--bogus"], "option --bogus not recognized"),
        ):
            for command in ([TWISTD, "-n", "--pidfile=", "balancebeam"], _script()):
                done = subprocess.run(
                    [*command, *options],
                    capture_output=True,
                    text=True,
                    cwd=tmp_path,
                    timeout=TIMEOUT,
                    check=False,
                )
                assert done.returncode == 1, done
                (line,) = done.stderr.splitlines()
                assert line.startswith("balancebeam: ")
                assert words in line
                assert "Traceback" not in done.stdout


def _script() -> list[str]:
    return [str(Path(sys.executable).with_name("balancebeam"))]


def test_help(tmp_path: Path) -> None:
    listed = subprocess.run(
        [TWISTD, "--help"], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert "balancebeam" in listed.stdout
    shown = subprocess.run(
        [TWISTD, "-n", "balancebeam", "--help"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert "--upstream=" in shown.stdout
    assert "         Twisted" not in shown.stdout


def test_daemon(tmp_path: Path) -> None:
    port = free_port()
    pid_file, log_file = tmp_path / "d.pid", tmp_path / "d.log"
    command = [TWISTD, f"--pidfile={pid_file}", f"--logfile={log_file}"]
    command += ["balancebeam", "--demo", "1", "--bind", f"127.0.0.1:{port}"]
    subprocess.run(command, cwd=tmp_path, timeout=TIMEOUT, check=True)
    pid = int(pid_file.read_text())
    try:
        assert b"demo server 1" in get(port)
        # A second one cannot have the port, and says so.
        second = [*command[:1], f"--pidfile={tmp_path / 'e.pid'}", *command[2:]]
        failed = subprocess.run(
            second, cwd=tmp_path, timeout=TIMEOUT, capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1
        assert f"--bind 127.0.0.1:{port}: address already in use" in failed.stderr
        assert not (tmp_path / "e.pid").exists()
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pid_file.exists())
    assert "Server Shut Down" in log_file.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_log_file_of_another_user_is_reopened() -> None:
    """With --uid, a log file in a directory of root is opened again by a reload."""
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid)
    # The folders of pytest are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "access.log"
        port = free_port()
        command = [TWISTD, "-n", "--pidfile=", f"--uid={user.pw_uid}", "balancebeam", "--demo=1"]
        command += ["--bind", f"127.0.0.1:{port}", "--access-log", str(path)]
        with open(folder / "output.txt", "w+b") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
            try:
                wait_until(lambda: _responds(port))
                assert path.stat().st_uid == user.pw_uid
                path.rename(folder / "access.log.1")
                path.touch()
                os.chown(path, user.pw_uid, user.pw_gid)
                process.send_signal(signal.SIGHUP)
                wait_until(lambda: get(port) and path.stat().st_size)
            finally:
                process.terminate()
                assert process.wait(TIMEOUT) == 0
        text = (folder / "output.txt").read_text()
        assert f"log file {path} cannot be created by user {user.pw_uid}" in text
        assert "cannot reopen" not in text


def _responds(port: int) -> bool:
    with contextlib.suppress(OSError):
        return b" 200 " in get(port)
    return False


@pytest.mark.parametrize("reactor", ["select", "poll", "asyncio"])
def test_other_reactors(tmp_path: Path, reactor: str) -> None:
    port = free_port()
    command = [TWISTD, "-n", "--pidfile=", f"--reactor={reactor}", "balancebeam"]
    with open(tmp_path / "output.txt", "wb") as output:
        process = subprocess.Popen(
            [*command, "--demo", "1", "--bind", f"127.0.0.1:{port}"],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: _open(port))
            assert b"demo server 1" in get(port)
        finally:
            process.terminate()
            assert process.wait(TIMEOUT) in (0, -signal.SIGTERM)


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with ScriptedServer(respond_with("one")) as one:
        with run_balancer(tmp_path, "--upstream", one.address) as running:
            get(running.port)
            before = running.fd_count()
            clients = []
            for number in range(200):
                client = running.connect()
                client.sendall(GET[: number % len(GET)] if number % 3 else GET)
                clients.append(client)
            for client in clients:
                client.close()
            wait_until(lambda: running.fd_count() <= before + 200)
            for _ in range(50):
                get(running.port)
            # The server may yet have to accept what is already connected.
            wait_until(lambda: running.fd_count() <= before + one.connections)


def test_response_that_nobody_asked_for_answers_nobody(tmp_path: Path) -> None:
    # The client's request and, behind it, the stray response wait for the
    # balancer together; nginx and HAProxy take the one for the other's answer.
    stray = threading.Event()
    sent = threading.Event()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"

    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(answer + b"good")
        if number == 1:
            stray.wait(TIMEOUT)
            connection.sendall(answer + b"evil")
            sent.set()
        connection.recv(1)

    with (
        ScriptedServer(serve) as server,
        run_balancer(tmp_path, "--upstream", server.address) as running,
    ):
        with running.connect() as client:
            client.sendall(GET)
            assert read_body(client) == b"good"
            running.process.send_signal(signal.SIGSTOP)
            client.sendall(GET)
            stray.set()
            assert sent.wait(TIMEOUT)
            running.process.send_signal(signal.SIGCONT)
            assert read_body(client) == b"good"
            assert server.connections == 2


def read_body(client: socket.socket) -> bytes:
    """The four octets of the body of the next response."""
    _, rest = read_head(client)
    while len(rest) < 4:
        rest += client.recv(100)
    return rest


def test_limits_and_the_proxy_protocol(tmp_path: Path) -> None:
    port = free_port()
    with ScriptedServer(respond_with("one")) as one:
        options = ("-u", one.address, "--max-requests-per-minute", "3")
        with run_balancer(tmp_path, *options, "--bind", f"haproxy:127.0.0.1:{port}") as running:
            wait_until(lambda: _accepts(port))
            # Those who are really there are counted, and not the proxy.
            for host, expected in (("203.0.113.1", [200] * 3 + [429]), ("203.0.113.2", [200])):
                header = b"PROXY TCP4 %b 192.0.2.1 1 2\r\n" % host.encode()
                assert [_status_through(port, header) for _ in expected] == expected
            assert [int(get(running.port)[9:12]) for _ in range(4)] == [200, 200, 200, 429]


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _status_through(port: int, header: bytes) -> int:
    return int(get(port, header + GET)[9:12])


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / "link").symlink_to(precious)
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1:1\n\n127.0.0.1:1\n")
    for options, words in (
        (["--bind", f"unix:{precious}"], "no socket"),
        (["--bind", f"unix:{tmp_path}/link"], "no socket"),
        (["--bind", "127.0.0.1:0", "--admin", f"unix:{precious}"], "no socket"),
        (["--state", f"{tmp_path}/nowhere/state"], "missing directory"),
        (["--state", f"{tmp_path}"], "not a directory"),
        (["--hosts", f"{hosts}"], f"{hosts}:3: duplicate address 127.0.0.1:1"),
        (["--bind", f"unix:{precious}", "--access-log", "/nowhere/a"], "/nowhere/a"),
    ):
        done = subprocess.run(
            [TWISTD, "-n", "--pidfile=", "balancebeam", "--demo", "1", *options],
            cwd=tmp_path,
            timeout=TIMEOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, (options, done)
        assert words in done.stderr, (options, done.stderr)
    # Both mistakes of the last one, in one run.
    assert "no socket" in done.stderr
    assert precious.read_text() == "data"
    assert (tmp_path / "link").is_symlink()


def test_signals_in_quick_succession(tmp_path: Path) -> None:
    for pause in (0.0, 0.01, 0.03):
        with run_balancer(tmp_path, "--demo", "1") as running:
            running.process.send_signal(signal.SIGTERM)
            if pause:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(pause)
            with contextlib.suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGINT)
            assert running.process.wait(TIMEOUT) == 0
