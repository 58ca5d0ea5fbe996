"""Reloads by SIGHUP of real processes."""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.configured_balancer import ConfiguredBalancer, config, run_configured_balancer
from tests.helpers.http_client import GET, GET_CLOSE, connect, get, responds, try_connect
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    wait_until,
)

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


def reload(balancer: ConfiguredBalancer, text: str, message: str = "reloaded: ") -> None:
    """Reload with the configuration `text`, and wait until `message` is logged once more."""
    before = balancer.log.read_text().count(message)
    # Replace the file at once: each change is logged in a line of its own, so the balancer may
    # still be busy with the last reload, and must not read a truncated file.
    new_config = balancer.config.with_suffix(".new")
    new_config.write_text(text)
    os.replace(new_config, balancer.config)
    balancer.send(signal.SIGHUP)
    wait_until(partial(balancer.has_logged, message, before + 1))


def fd_count(balancer: ConfiguredBalancer) -> int:
    """Return the number of open file descriptors."""
    return len(os.listdir(f"/proc/{balancer.process.pid}/fd"))


def echo(connection: socket.socket, number: int) -> None:
    """Upgrade the first request of the connection, and return every byte after it."""
    read_head(connection)
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
    )
    while data := connection.recv(100):
        connection.sendall(data)


def test_tunnel_survives_removal_of_its_frontend_and_pool(
    tmp_path: Path, server_two: ScriptedServer
) -> None:
    """A tunnel stays open after a reload has removed its listener, frontend and pool."""
    port, new_port = free_port(), free_port()
    with (
        ScriptedServer(echo) as server_one,
        run_configured_balancer(
            tmp_path, config(server_one.address, f"127.0.0.1:{port}")
        ) as balancer,
    ):
        client = wait_until(partial(try_connect, port))
        with client:
            client.sendall(UPGRADE)
            read_head(client)
            text = config(server_two.address, f"127.0.0.1:{new_port}").replace('"app"', '"new"')
            text = text.replace('name = "web"', 'name = "new-web"')
            reload(balancer, text)
            assert get(new_port).endswith(b"two")
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            # Retired services are reaped every second, but not while they have connections.
            threading.Event().wait(2.5)
            client.sendall(b"ping")
            assert client.recv(4) == b"ping"
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""


def test_rejected_reload_changes_nothing(tmp_path: Path, server_one: ScriptedServer) -> None:
    """A reload with invalid keys or an address in use is rejected, and leaves no socket open."""
    port, unbound = free_port(), free_port()
    text = config(server_one.address, f"127.0.0.1:{port}")
    with (
        run_configured_balancer(tmp_path, text, port) as balancer,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        before = fd_count(balancer)
        reload(
            balancer, text.replace("upstreams", "upstream") + "colour = 1\n", "reload rejected: "
        )
        assert balancer.has_logged("upstream")
        assert balancer.has_logged("colour")
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        binds = f'"127.0.0.1:{unbound}", "127.0.0.1:{port}", "{used}"'
        bad = text.replace(f'"127.0.0.1:{port}"', binds).replace(server_one.address, "127.0.0.1:1")
        reload(balancer, bad, "reload rejected: ")
        assert balancer.has_logged(f"{used}: address already in use")
        assert responds(port)
        with pytest.raises(ConnectionRefusedError):
            connect(unbound)
        wait_until(lambda: fd_count(balancer) <= before + 1)
        reload(balancer, text, "no changes")


def test_listeners_move_between_frontends(
    tmp_path: Path, server_one: ScriptedServer, server_two: ScriptedServer
) -> None:
    """Reloads add the PROXY protocol, swap addresses between frontends, and change the mode."""
    port, header = free_port(), b"PROXY TCP4 203.0.113.1 192.0.2.1 1 2\r\n"
    path = str(tmp_path / "socket")
    plain = f"127.0.0.1:{port}"
    second = '[[frontend]]\nname = "more"\nbind = "BIND"\npool = "b"\n'
    second += f'[[pool]]\nname = "b"\nupstreams = ["{server_two.address}"]\n'
    with run_configured_balancer(tmp_path, config(server_one.address, plain), port) as balancer:
        with connect(port) as client:
            client.sendall(GET)
            read_head(client)
            reload(balancer, config(server_one.address, f"haproxy:{plain}"))
            assert get(port, header + GET_CLOSE).endswith(b"one")
            with pytest.raises(ConnectionResetError):
                get(port)
            # Connections that were accepted before stay as they are.
            client.sendall(GET)
            assert read_head(client)[0].startswith(b"HTTP/1.1 200 ")
        after = second.replace("BIND", plain)
        reload(balancer, config(server_one.address, f"unix:{path}", after=after))
        assert get(port).endswith(b"two")
        assert get(path).endswith(b"one")
        after = second.replace("BIND", f"unix:{path}")
        reload(balancer, config(server_one.address, plain, after=after))
        assert get(path).endswith(b"two")
        assert get(port).endswith(b"one")
        reload(balancer, config(server_one.address, plain))
        assert not os.path.exists(path)
        tcp = config(server_one.address, plain).replace('"web"', '"web"\nmode = "tcp"')
        reload(balancer, tcp)
        with connect(port) as client:
            client.sendall(GET)
            assert b"Via" not in read_head(client)[0]
        reload(balancer, config(server_one.address, plain))
        assert get(port).endswith(b"one")


def test_demo_servers_follow_reload(tmp_path: Path) -> None:
    """A reload changes the number of demo servers, and keeps them when pool or mode change."""
    port = free_port()
    text = f'demo = 2\n[[frontend]]\nname = "web"\nbind = "127.0.0.1:{port}"\npool = "app"\n'
    text += '[[pool]]\nname = "app"\nupstreams = []\n'
    with run_configured_balancer(tmp_path, text, port) as balancer:
        for changed, count in (
            (text.replace("demo = 2", "demo = 3"), 3),
            (text.replace('"app"', '"other"'), 2),
            (text.replace('name = "web"', 'name = "web"\nmode = "http"'), 2),
        ):
            reload(balancer, changed)
            bodies = {get(port).partition(b"\r\n\r\n")[2] for _ in range(2 * count)}
            assert len(bodies) == count, bodies


def test_hundred_reloads_under_load(
    tmp_path: Path, server_one: ScriptedServer, server_two: ScriptedServer
) -> None:
    """A hundred reloads under load fail no request and leak no file descriptor."""
    port, new_port = free_port(), free_port()
    texts = [
        config(server_one.address, f"127.0.0.1:{port}"),
        config(server_two.address, f"127.0.0.1:{port}", f"127.0.0.1:{new_port}").replace(
            '"app"', '"b"'
        ),
    ]
    failed: list[object] = []
    done = threading.Event()

    def send_requests() -> None:
        """Send requests, 20 on each connection, until `done` is set, and record failures."""
        while not done.is_set():
            try:
                with connect(port) as client:
                    for _ in range(20):
                        client.sendall(GET)
                        head, _ = read_head(client)
                        assert head.startswith(b"HTTP/1.1 200 "), head
            except (OSError, AssertionError) as failure:
                failed.append(failure)

    with run_configured_balancer(tmp_path, texts[0], port) as balancer:
        reload(balancer, texts[1])
        reload(balancer, texts[0])
        before = fd_count(balancer)
        requests = threading.Thread(target=send_requests)
        requests.start()
        try:
            for number in range(1, 101):
                reload(balancer, texts[number % 2])
        finally:
            done.set()
            requests.join(TIMEOUT)
        assert not failed, failed[:3]
        assert not balancer.has_logged("reload rejected")
        wait_until(lambda: fd_count(balancer) <= before + 4)
