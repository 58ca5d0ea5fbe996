"""gRPC with the client and the server of grpcio."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.certificates import shared_authority, write
from tests.helpers.processes import (
    TIMEOUT,
    BalancerProcess,
    ScriptedServer,
    run_balancer,
    wait_until,
)

grpc = pytest.importorskip("grpc")

from h2.config import H2Configuration  # noqa: E402
from h2.connection import H2Connection  # noqa: E402
from h2.events import RequestReceived  # noqa: E402

from tests.helpers.grpc_server import OPTIONS, GrpcServer  # noqa: E402

SIZE = 3_000_000

CONFIG = """
[frontend]
h2c = true

[pool]
protocol = "h2"
upstreams = [{upstreams}]
"""


@contextlib.contextmanager
def balancer(folder: Path, *addresses: str, extra: str = "") -> Iterator[BalancerProcess]:
    """Run a balancer for gRPC servers, without TLS."""
    upstreams = ", ".join(f'"{address}"' for address in addresses)
    config = write(
        folder / "balancebeam.toml", (CONFIG.format(upstreams=upstreams) + extra).encode()
    )
    with run_balancer(folder, "--config", config) as running:
        yield running


class Client:
    """A client of `test.Echo` on one connection."""

    def __init__(self, port: int, credentials: Any = None) -> None:
        """Connect to `port`, with TLS if there are credentials."""
        # Channels of one process share connections otherwise.
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if credentials is None:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        else:
            self.channel = grpc.secure_channel(f"localhost:{port}", credentials, options)
        channel = self.channel
        self.unary = channel.unary_unary("/test.Echo/Unary")
        self.fail = channel.unary_unary("/test.Echo/Fail")
        self.sleep = channel.unary_unary("/test.Echo/Sleep")
        self.collect = channel.stream_unary("/test.Echo/Collect")
        self.repeat = channel.unary_stream("/test.Echo/Repeat")
        self.chat = channel.stream_stream("/test.Echo/Chat")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *arguments: object) -> None:
        self.channel.close()


class Chat:
    """A bidirectional stream whose messages the test sends one by one."""

    def __init__(self, client: Client) -> None:
        """Start the stream."""
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        self.call = client.chat(iter(self._requests.get, None), timeout=TIMEOUT)

    def send(self, message: bytes) -> None:
        """Send a message, without waiting for the response."""
        self._requests.put(message)

    def exchange(self, message: bytes) -> bytes:
        """Send a message, and return the response."""
        self.send(message)
        response: bytes = next(self.call)
        return response

    def end(self) -> Any:
        """End the requests, and return the status code."""
        self._requests.put(None)
        assert list(self.call) == []
        return self.call.code()


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    """One gRPC server."""
    with GrpcServer() as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GrpcServer, int]]:
    """One gRPC server, and the port of a balancer for it."""
    folder = tmp_path_factory.mktemp("grpc")
    with GrpcServer() as server, balancer(folder, server.address) as running:
        yield server, running.port


def trailers(call: Any) -> dict[str, Any]:
    """Return the trailing metadata of a call."""
    return {entry.key: entry.value for entry in call.trailing_metadata()}


def error(function: Any, *arguments: Any, **options: Any) -> Any:
    """Make a call that fails; return its error."""
    with pytest.raises(grpc.RpcError) as caught:
        function(*arguments, timeout=options.pop("timeout", TIMEOUT), **options)
    return caught.value


def test_kinds_of_calls(shared: tuple[GrpcServer, int]) -> None:
    """Unary, client, server and bidirectional streaming; metadata, statuses and large messages."""
    with Client(shared[1]) as client:
        response, call = client.unary.with_call(b"hello", timeout=TIMEOUT)
        assert response == b"hello"
        assert trailers(call) == {"x-server": "one", "x-data-bin": b"\0\xff"}
        assert client.unary(b"", timeout=TIMEOUT) == b""
        assert client.collect(iter([b"a", b"b", b"c"]), timeout=TIMEOUT) == b"a,b,c"
        repeated = list(client.repeat(b"500", timeout=TIMEOUT))
        assert repeated == [b"%d" % number for number in range(500)]
        large = b"x" * SIZE
        assert client.unary(large, timeout=TIMEOUT) == large
        failure = error(client.fail, b"")
        assert failure.code() is grpc.StatusCode.NOT_FOUND
        assert failure.details() == "no \u00fcber 100%"
        assert trailers(failure)["x-server"] == "one"
        unknown = client.channel.unary_unary("/test.Echo/Unknown")
        assert error(unknown, b"").code() is grpc.StatusCode.UNIMPLEMENTED
        chat = Chat(client)
        started = time.monotonic()
        for number in range(100):
            assert chat.exchange(b"%d" % number) == b"%d" % number
        # Nagle's algorithm with delayed acknowledgements would take 4 s.
        assert time.monotonic() - started < 3
        assert chat.end() is grpc.StatusCode.OK
        aborted = Chat(client)
        assert aborted.exchange(b"a") == b"a"
        aborted.send(b"abort")
        with pytest.raises(grpc.RpcError) as caught:
            next(aborted.call)
        assert caught.value.code() is grpc.StatusCode.ABORTED


def test_deadline_and_cancellation(shared: tuple[GrpcServer, int]) -> None:
    """The call at the server ends at the deadline, and when the client cancels it."""
    server, port = shared
    with Client(port) as client:
        assert client.unary(b"", timeout=TIMEOUT) == b""
        failure = error(client.sleep, b"", timeout=0.3)
        assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.cancelled.wait(TIMEOUT)
        server.cancelled.clear()
        server.sleeping.clear()
        call = client.sleep.future(b"", timeout=TIMEOUT)
        assert server.sleeping.wait(TIMEOUT)
        call.cancel()
        assert server.cancelled.wait(TIMEOUT)
        assert client.unary(b"still", timeout=TIMEOUT) == b"still"


def test_tls(tmp_path: Path) -> None:
    """Over TLS, ALPN selects HTTP/2 on both sides."""
    authority = shared_authority()
    issued = authority.issue("localhost")
    pair = issued.write_file(tmp_path / "pair.pem")
    ca = write(tmp_path / "ca.pem", authority.root)
    content = Path(pair).read_bytes()
    server_credentials = grpc.ssl_server_credentials([(content, content)])
    credentials = grpc.ssl_channel_credentials(authority.root)
    with GrpcServer(credentials=server_credentials) as server:
        config = write(
            tmp_path / "balancebeam.toml",
            f"""
            [frontend.tls]
            certificates = ["{pair}"]
            [pool]
            protocol = "h2"
            upstreams = ["https://localhost:{server.port}"]
            tls.ca = "{ca}"
            """.encode(),
        )
        with run_balancer(tmp_path, "--config", config) as running:
            with Client(running.port, credentials) as client:
                assert client.unary(b"secret", timeout=TIMEOUT) == b"secret"
                assert Chat(client).exchange(b"a") == b"a"


def test_killed_server(tmp_path: Path) -> None:
    """Calls fail when their server is killed; later ones are UNAVAILABLE."""
    command = [sys.executable, "-m", "tests.helpers.grpc_server", "killed"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        with balancer(tmp_path, address) as running, Client(running.port) as client:
            chat = Chat(client)
            assert chat.exchange(b"a") == b"a"
            waiting = client.sleep.future(b"", timeout=TIMEOUT)
            # Its request has reached the server when a later one is answered.
            assert chat.exchange(b"b") == b"b"
            process.kill()
            with pytest.raises(grpc.RpcError) as caught:
                next(chat.call)
            # The response has started: RST_STREAM(INTERNAL_ERROR).
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert waiting.exception(TIMEOUT).code() is grpc.StatusCode.UNAVAILABLE
            failure = error(client.unary, b"")
            assert failure.code() is grpc.StatusCode.UNAVAILABLE
            assert failure.details() == "the server could not be reached"


def refuse_streams(connection: socket.socket, number: int) -> None:
    """Reset every stream with REFUSED_STREAM."""
    h2 = H2Connection(H2Configuration(client_side=False))
    h2.initiate_connection()
    connection.sendall(h2.data_to_send())
    while data := connection.recv(65536):
        for event in h2.receive_data(data):
            if isinstance(event, RequestReceived):
                h2.reset_stream(event.stream_id, 7)
        connection.sendall(h2.data_to_send())


def test_refused_streams(tmp_path: Path, server: GrpcServer) -> None:
    """A stream that a server refuses is sent to another one, although it is a POST."""
    with ScriptedServer(refuse_streams) as refusing:
        addresses = refusing.address, server.address
        with balancer(tmp_path, *addresses) as running, Client(running.port) as client:
            for _ in range(4):
                assert client.unary(b"a", timeout=TIMEOUT) == b"a"
        assert refusing.connections > 0


def test_drain(tmp_path: Path, server: GrpcServer) -> None:
    """A drain lets a stream go on to its end, and then the process exits."""
    with balancer(tmp_path, server.address) as running, Client(running.port) as client:
        chat = Chat(client)
        assert chat.exchange(b"a") == b"a"
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "drain" in running.output.read_text())
        for _ in range(30):
            assert chat.exchange(b"b") == b"b"
            time.sleep(0.05)
        assert running.process.poll() is None
        assert chat.end() is grpc.StatusCode.OK
        assert running.process.wait(TIMEOUT) == 0


def test_health_checks_and_balancing(tmp_path: Path, server: GrpcServer) -> None:
    """Servers get calls while their service is serving; each call is balanced by itself."""
    service = "my.Service"
    server.serving[service] = 1
    extra = f'[pool.health]\ngrpc = "{service}"\ninterval = 0.1\ntimeout = 1\nrise = 1\nfall = 1\n'
    with GrpcServer("two") as second, contextlib.ExitStack() as stack:
        addresses = server.address, second.address
        running = stack.enter_context(balancer(tmp_path, *addresses, extra=extra))
        client = stack.enter_context(Client(running.port))

        def wait_for(text: str) -> None:
            wait_until(lambda: text in running.output.read_text())

        answered = f"gRPC health check of '{service}' was answered with"
        # The second server does not know the service.
        wait_for(f"{second.address} is down: {answered} grpc-status 5: 'unknown service'")
        for _ in range(4):
            client.unary(b"", timeout=TIMEOUT)
        assert (server.calls, second.calls) == (4, 0)
        second.serving[service] = 1
        wait_for(f"{second.address} is up: {answered} SERVING")
        for _ in range(10):
            client.unary(b"", timeout=TIMEOUT)
        assert (server.calls, second.calls) == (9, 5)
        server.serving[service] = 2
        wait_for(f"{server.address} is down: {answered} NOT_SERVING")
        for _ in range(4):
            client.unary(b"", timeout=TIMEOUT)
        assert (server.calls, second.calls) == (9, 9)
