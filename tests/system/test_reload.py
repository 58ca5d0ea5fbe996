"""SIGHUP with files that changed in every way, over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    respond_with,
    wait_until,
)
from tests.system.test_signals import (
    GET,
    GET_CLOSE,
    ConfiguredBalancer,
    config,
    connect,
    get,
    responds,
    run_configured_balancer,
)

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


@pytest.fixture
def one() -> Iterator[ScriptedServer]:
    with ScriptedServer(respond_with("one")) as server:
        yield server


@pytest.fixture
def two() -> Iterator[ScriptedServer]:
    with ScriptedServer(respond_with("two")) as server:
        yield server


def reload(balancer: ConfiguredBalancer, text: str, said: str = "reloaded: ") -> None:
    """Have it read `text`, and wait until it has said something of it."""
    before = balancer.log.read_text().count(said)
    balancer.config.write_text(text)
    balancer.send(signal.SIGHUP)
    wait_until(partial(balancer.has_logged, said, before + 1))


def fd_count(balancer: ConfiguredBalancer) -> int:
    return len(os.listdir(f"/proc/{balancer.process.pid}/fd"))


def echo(connection: socket.socket, number: int) -> None:
    read_head(connection)
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
    )
    while data := connection.recv(100):
        connection.sendall(data)


def test_a_tunnel_outlives_all_that_it_came_by(tmp_path: Path, two: ScriptedServer) -> None:
    port, other = free_port(), free_port()
    with (
        ScriptedServer(echo) as one,
        run_configured_balancer(tmp_path, config(one.address, f"127.0.0.1:{port}")) as it,
    ):
        client = wait_until(partial(_connected, port))
        with client:
            client.sendall(UPGRADE)
            read_head(client)
            text = config(two.address, f"127.0.0.1:{other}").replace('"app"', '"new"')
            text = text.replace('name = "web"', 'name = "new-web"')
            reload(it, text)
            assert get(other).endswith(b"two")
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            threading.Event().wait(2.5)
            client.sendall(b"ping")
            assert client.recv(4) == b"ping"
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""


def _connected(port: int) -> socket.socket | None:
    try:
        return connect(port)
    except OSError:
        return None


def test_mistakes_change_nothing(tmp_path: Path, one: ScriptedServer) -> None:
    port, wanted = free_port(), free_port()
    text = config(one.address, f"127.0.0.1:{port}")
    with (
        run_configured_balancer(tmp_path, text, port) as it,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        before = fd_count(it)
        reload(it, text.replace("upstreams", "upstream") + "colour = 1\n", "reload rejected: ")
        assert it.has_logged("upstream")
        assert it.has_logged("colour")
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        binds = f'"127.0.0.1:{wanted}", "127.0.0.1:{port}", "{used}"'
        bad = text.replace(f'"127.0.0.1:{port}"', binds).replace(one.address, "127.0.0.1:1")
        reload(it, bad, "reload rejected: ")
        assert it.has_logged(f"{used}: address already in use")
        assert responds(port)
        with pytest.raises(ConnectionRefusedError):
            connect(wanted)
        wait_until(lambda: fd_count(it) <= before + 1)
        reload(it, text, "no changes")


def test_places_move(tmp_path: Path, one: ScriptedServer, two: ScriptedServer) -> None:
    port, header = free_port(), b"PROXY TCP4 203.0.113.1 192.0.2.1 1 2\r\n"
    path = str(tmp_path / "socket")
    plain = f"127.0.0.1:{port}"
    second = '[[frontend]]\nname = "more"\nbind = "BIND"\npool = "b"\n'
    second += f'[[pool]]\nname = "b"\nupstreams = ["{two.address}"]\n'
    with run_configured_balancer(tmp_path, config(one.address, plain), port) as it:
        with connect(port) as kept:
            kept.sendall(GET)
            read_head(kept)
            reload(it, config(one.address, f"haproxy:{plain}"))
            assert get(port, header + GET_CLOSE).endswith(b"one")
            with pytest.raises(ConnectionResetError):
                get(port)
            # The listener changed, and not the connections that came by it.
            kept.sendall(GET)
            assert read_head(kept)[0].startswith(b"HTTP/1.1 200 ")
        after = second.replace("BIND", plain)
        reload(it, config(one.address, f"unix:{path}", after=after))
        assert get(port).endswith(b"two")
        assert get(path).endswith(b"one")
        after = second.replace("BIND", f"unix:{path}")
        reload(it, config(one.address, plain, after=after))
        assert get(path).endswith(b"two")
        assert get(port).endswith(b"one")
        reload(it, config(one.address, plain))
        assert not os.path.exists(path)
        tcp = config(one.address, plain).replace('"web"', '"web"\nmode = "tcp"')
        reload(it, tcp)
        with connect(port) as raw:
            raw.sendall(GET)
            assert b"Via" not in read_head(raw)[0]
        reload(it, config(one.address, plain))
        assert get(port).endswith(b"one")


def test_demo_servers(tmp_path: Path) -> None:
    port = free_port()
    text = f'demo = 2\n[[frontend]]\nname = "web"\nbind = "127.0.0.1:{port}"\npool = "app"\n'
    text += '[[pool]]\nname = "app"\nupstreams = []\n'
    with run_configured_balancer(tmp_path, text, port) as it:
        for changed, count in (
            (text.replace("demo = 2", "demo = 3"), 3),
            (text.replace('"app"', '"other"'), 2),
            (text.replace('name = "web"', 'name = "web"\nmode = "http"'), 2),
        ):
            reload(it, changed)
            seen = {get(port).partition(b"\r\n\r\n")[2] for _ in range(2 * count)}
            assert len(seen) == count, seen


def test_a_hundred_reloads_under_requests(
    tmp_path: Path, one: ScriptedServer, two: ScriptedServer
) -> None:
    port, other = free_port(), free_port()
    texts = [
        config(one.address, f"127.0.0.1:{port}"),
        config(two.address, f"127.0.0.1:{port}", f"127.0.0.1:{other}").replace('"app"', '"b"'),
    ]
    failed: list[object] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                with connect(port) as client:
                    for _ in range(20):
                        client.sendall(GET)
                        head, _ = read_head(client)
                        assert head.startswith(b"HTTP/1.1 200 "), head
            except (OSError, AssertionError) as failure:
                failed.append(failure)

    with run_configured_balancer(tmp_path, texts[0], port) as it:
        reload(it, texts[1])
        reload(it, texts[0])
        before = fd_count(it)
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for number in range(1, 101):
                reload(it, texts[number % 2])
        finally:
            done.set()
            asking.join(TIMEOUT)
        assert not failed, failed[:3]
        assert not it.has_logged("reload rejected")
        wait_until(lambda: fd_count(it) <= before + 4)
