"""The balancer as a process started by twistd, on real sockets."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
import treq
from twisted.internet.threads import deferToThread
from twisted.web.client import HTTPConnectionPool

from tests.helpers.http_client import GET, GET_CLOSE, get
from tests.helpers.processes import (
    BALANCEBEAM,
    TIMEOUT,
    TWISTD,
    ScriptedServer,
    accepts_connections,
    free_port,
    read_all,
    read_head,
    respond_with,
    run_balancer,
    wait_until,
)


def test_round_robin(tmp_path: Path) -> None:
    """Requests alternate between two servers."""
    with (
        ScriptedServer(respond_with("one")) as server_one,
        ScriptedServer(respond_with("two")) as server_two,
    ):
        upstreams = ("--upstream", server_one.address, "--upstream", server_two.address)
        with run_balancer(tmp_path, *upstreams) as running:
            bodies = [get(running.port).partition(b"\r\n\r\n")[2] for _ in range(6)]
        assert bodies == [b"one", b"two"] * 3


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_demo_servers_with_treq(tmp_path: Path) -> None:
    """treq gets responses of every demo server, and posts a large body."""
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
        # Wait in a thread, so that the reactor of the tests keeps running.
        await deferToThread(running.stop)


def _reactor() -> Any:
    """Return the reactor of the tests, imported late so that it can be chosen."""
    from twisted.internet import reactor

    return reactor


def test_unix_sockets(tmp_path: Path) -> None:
    """Listener and server can be Unix sockets; the listener's socket is unlinked at exit."""
    path = f"unix:{tmp_path}/s"
    (tmp_path / "front").mkdir()
    with ScriptedServer(respond_with("one")) as server:
        with run_balancer(tmp_path, "--upstream", server.address, "--bind", path) as running:
            wait_until((tmp_path / "s").exists)
            with run_balancer(tmp_path / "front", "--upstream", path) as front:
                assert get(front.port).endswith(b"one")
            assert running.process.poll() is None
    assert not (tmp_path / "s").exists()


def test_endpoint_description(tmp_path: Path) -> None:
    """A listener can be a Twisted endpoint description."""
    port = free_port()
    with ScriptedServer(respond_with("one")) as server:
        bind = ("--bind", f"tcp:{port}:interface=127.0.0.1")
        with run_balancer(tmp_path, "--upstream", server.address, *bind):
            assert get(port).endswith(b"one")


def test_buffer_for_stalled_client_is_bounded(tmp_path: Path) -> None:
    """A client that does not read a response of 1 GiB costs less than 4 MiB of memory."""
    # A client that stops reading is the slowest possible one, so what the balancer has
    # received by then is the most that it buffers for any slow client.
    sent = [0]

    def serve(connection: socket.socket, number: int) -> None:
        """Send 1 GiB, until nothing is accepted for a second."""
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        piece = b"x" * 65536
        connection.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while sent[0] < 1 << 30:
                sent[0] += connection.send(piece)

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
            while sent[0] != last:
                last = sent[0]
                threading.Event().wait(0.5)
            assert running.resident_bytes() - before < 4 << 20
            # Kernel buffers hold a few MiB on both sides; the server keeps the rest.
            assert sent[0] < 64 << 20


def test_large_bodies_in_both_directions(tmp_path: Path) -> None:
    """Request and response bodies of 30 MiB are forwarded unchanged."""
    size = 30 << 20

    def serve(connection: socket.socket, number: int) -> None:
        """Read the request body; respond with its digest and a large body."""
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
        head = (
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        )
        response_body = get(running.port, head + body).partition(b"\r\n\r\n")[2]
        assert response_body[:64] == hashlib.sha256(body).hexdigest().encode()
        assert response_body[64:] == b"y" * size


def test_failover_and_bad_gateway(tmp_path: Path) -> None:
    """Requests fail over from a server that refuses connections; without any other, 502 is sent."""
    dead = free_port()
    with ScriptedServer(respond_with("alive")) as alive:
        upstreams = ("--upstream", f"127.0.0.1:{dead}", "--upstream", alive.address)
        with run_balancer(tmp_path, *upstreams) as running:
            for _ in range(10):
                assert get(running.port).endswith(b"alive")
            text = running.output.read_text()
            assert text.count("ejected for 10 s") == 1, text
    # Now neither server accepts connections.
    with run_balancer(tmp_path, *upstreams) as running:
        assert get(running.port).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


def test_truncated_response_is_not_completed(tmp_path: Path) -> None:
    """A truncated response is reset (HTTP/1.0), or ends without the last chunk (HTTP/1.1)."""

    def serve(connection: socket.socket, number: int) -> None:
        """Send the beginning of a body, then reset the connection."""
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


def test_client_disconnect_cancels_upstream_request(tmp_path: Path) -> None:
    """The upstream connection is closed when the client disconnects before the response."""
    stopped = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        """Do not respond; wait for the end of the connection."""
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


def test_half_closed_client_receives_response(tmp_path: Path) -> None:
    """A client that half-closes its connection after the request receives the response."""
    with ScriptedServer(respond_with("one")) as server:
        with (
            run_balancer(tmp_path, "--upstream", server.address) as running,
            running.connect() as client,
        ):
            client.sendall(GET)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client).endswith(b"one")


def test_tunnel(tmp_path: Path) -> None:
    """After a 101 response, bytes and half-closes are forwarded in both directions."""

    def serve(connection: socket.socket, number: int) -> None:
        """Accept the upgrade, read up to EOF, and return everything."""
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


def test_invalid_options_and_busy_address(tmp_path: Path) -> None:
    """Invalid options and an address in use end the start with status 1 and a one-line error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        for options, words in (
            ([], "no server"),
            (["--upstream", "nonsense"], "invalid address 'nonsense'"),
            (["--demo", "1", "--bind", used], f"--bind {used}: address already in use"),
            (["--demo", "1", "--bogus"], "option --bogus not recognized"),
        ):
            for command in ([TWISTD, "-n", "--pidfile=", "balancebeam"], [BALANCEBEAM]):
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


def test_help(tmp_path: Path) -> None:
    """twistd lists the plugin, and its --help shows our options without Twisted's generic text."""
    plugins = subprocess.run(
        [TWISTD, "--help"], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert "balancebeam" in plugins.stdout
    options = subprocess.run(
        [TWISTD, "-n", "balancebeam", "--help"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert "--upstream=" in options.stdout
    assert "         Twisted" not in options.stdout


def test_daemon(tmp_path: Path) -> None:
    """A daemon writes a PID file; a second one with the same address fails and leaves none."""
    port = free_port()
    pid_file, log_file = tmp_path / "d.pid", tmp_path / "d.log"
    command = [TWISTD, f"--pidfile={pid_file}", f"--logfile={log_file}"]
    command += ["balancebeam", "--demo", "1", "--bind", f"127.0.0.1:{port}"]
    subprocess.run(command, cwd=tmp_path, timeout=TIMEOUT, check=True)
    pid = int(pid_file.read_text())
    try:
        assert b"demo server 1" in get(port)
        # A second daemon cannot bind the port.
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
    # twistd removes the pid file before it writes the last line of its log.
    wait_until(lambda: "Server Shut Down" in log_file.read_text())


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
    """The balancer also works with reactors other than epoll."""
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
            wait_until(lambda: accepts_connections(port))
            assert b"demo server 1" in get(port)
        finally:
            process.terminate()
            assert process.wait(TIMEOUT) in (0, -signal.SIGTERM)


def test_no_descriptor_leak(tmp_path: Path) -> None:
    """Clients that disconnect at any point of a request leak no file descriptor."""
    with ScriptedServer(respond_with("one")) as server:
        with run_balancer(tmp_path, "--upstream", server.address) as running:
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
            # Idle upstream connections stay open. Wait, as the server may not have accepted,
            # and counted, all of them yet.
            wait_until(lambda: running.fd_count() <= before + server.connections)


def test_unsolicited_response_is_discarded(tmp_path: Path) -> None:
    """A response without a request is not taken for the answer to the next request."""
    # The second request and the unsolicited response are both received before the stopped
    # balancer runs again; nginx and HAProxy take this response for that of the request.
    send_unsolicited = threading.Event()
    sent = threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"

    def serve(connection: socket.socket, number: int) -> None:
        """Respond; on the first connection send a second response without a request."""
        read_head(connection)
        connection.sendall(head + b"good")
        if number == 1:
            send_unsolicited.wait(TIMEOUT)
            connection.sendall(head + b"evil")
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
            send_unsolicited.set()
            assert sent.wait(TIMEOUT)
            running.process.send_signal(signal.SIGCONT)
            assert read_body(client) == b"good"
            assert server.connections == 2


def read_body(client: socket.socket) -> bytes:
    """Read the next response; return its body of four bytes."""
    _, rest = read_head(client)
    while len(rest) < 4:
        rest += client.recv(100)
    return rest


def test_rate_limit_behind_proxy_protocol(tmp_path: Path) -> None:
    """The rate limit applies to the client address of the PROXY header, not to the proxy."""
    port = free_port()
    with ScriptedServer(respond_with("one")) as server:
        options = ("-u", server.address, "--max-requests-per-minute", "3")
        with run_balancer(tmp_path, *options, "--bind", f"haproxy:127.0.0.1:{port}") as running:
            wait_until(lambda: accepts_connections(port))
            # Each client address has a limit of its own.
            for host, expected in (("203.0.113.1", [200] * 3 + [429]), ("203.0.113.2", [200])):
                header = b"PROXY TCP4 %b 192.0.2.1 1 2\r\n" % host.encode()
                assert [_status_with_header(port, header) for _ in expected] == expected
            assert [int(get(running.port)[9:12]) for _ in range(4)] == [200, 200, 200, 429]


def _status_with_header(port: int, header: bytes) -> int:
    """Send a GET request after a PROXY header; return the status code."""
    return int(get(port, header + GET_CLOSE)[9:12])


def test_invalid_paths(tmp_path: Path) -> None:
    """A path of the wrong type ends the start with an error, and is left unchanged."""
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / "link").symlink_to(precious)
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1:1\n\n127.0.0.1:1\n")
    for options, words in (
        (["--bind", f"unix:{precious}"], "not a socket"),
        (["--bind", f"unix:{tmp_path}/link"], "not a socket"),
        (["--bind", "127.0.0.1:0", "--admin", f"unix:{precious}"], "not a socket"),
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
    # The last start reports both errors.
    assert "not a socket" in done.stderr
    assert precious.read_text() == "data"
    assert (tmp_path / "link").is_symlink()


def test_signals_in_quick_succession(tmp_path: Path) -> None:
    """SIGTERM and SIGINT within 30 ms of each other end the process with status 0."""
    for pause in (0.0, 0.01, 0.03):
        with run_balancer(tmp_path, "--demo", "1") as running:
            running.process.send_signal(signal.SIGTERM)
            if pause:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(pause)
            with contextlib.suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGINT)
            assert running.process.wait(TIMEOUT) == 0
