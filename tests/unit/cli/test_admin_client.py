"""The HTTP client of the admin API, and its deadline and size limit, over sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from balancebeam.cli.admin_address import parse_admin_address
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.deadline_socket import MAX_RESPONSE_BYTES
from balancebeam.cli.run import run
from tests.helpers.processes import ScriptedServer, free_port, read_head
from tests.unit.cli.scripted_listener import (
    failure,
    response,
    scripted_listener,
    server_info,
    success,
)

Capture = pytest.CaptureFixture[str]

SUCCESS = b'{"status": "success", "data": []}'

UNEXPECTED = "does not answer as the admin listener of a balancebeam does"


def test_requests(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request has a Host header and the token; a request with a body has its type."""
    heads: list[bytes] = []
    monkeypatch.setenv("BALANCEBEAM_TOKEN", "sesame")
    responses = (success([server_info()]), success(server_info(weight=5)))
    with scripted_listener(*responses, heads=heads) as server:
        monkeypatch.setenv("BALANCEBEAM_ADMIN", server.address)
        assert run(["weight", "10.0.0.1:80", "5"]) == 0
    assert capsys.readouterr() == ("10.0.0.1:80: up, weight 5, 0 in flight\n", "")
    first, second = (head.decode().split("\r\n") for head in heads)
    assert first[0] == "GET /upstreams HTTP/1.1"
    assert second[0] == "PATCH /upstreams/app/10.0.0.1%3A80 HTTP/1.1"
    assert "Content-Type: application/json" in second
    for lines in (first, second):
        assert [line for line in lines if line.lower().startswith("host:")] == [
            f"Host: {server.address}"
        ]
        assert "Authorization: Bearer sesame" in lines


def test_every_problem_is_a_line(capsys: Capture) -> None:
    """An error message of several lines is printed line by line, escaped."""
    message = "lb.toml:1: bind: wrong\nlb.toml:2: \x1b[31mevil"
    with scripted_listener(failure(message, "422 Unprocessable Content")) as server:
        assert run(["reload", "--admin", server.address]) == 1
    assert capsys.readouterr() == (
        "",
        "balancebeam: lb.toml:1: bind: wrong\nbalancebeam: lb.toml:2: \\u001b[31mevil\n",
    )


def test_jsend_fail(capsys: Capture) -> None:
    """The message of a JSend "fail" is its title."""
    body = json.dumps({"status": "fail", "data": {"title": "a not alive"}}).encode()
    with scripted_listener(response(body, "404 Not Found")) as server:
        assert run(["register", "a:1", "--admin", server.address]) == 1
    assert capsys.readouterr().err == "balancebeam: a not alive\n"


def test_token_is_never_printed(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors about a missing, wrong or invalid token do not contain it."""
    token = tmp_path / "token"
    token.write_text("sesame\n")
    message = "authentication required"
    with scripted_listener(failure(message, "401 Unauthorized")) as server:
        assert run(["status", "--admin", server.address]) == 1
        missing = capsys.readouterr().err
        assert run(["status", "--admin", server.address, "--token-file", str(token)]) == 1
        wrong = capsys.readouterr().err
    assert f"{message}; give it by --token-file FILE or BALANCEBEAM_TOKEN" in missing
    assert f"{message}, and the one that was given is wrong" in wrong
    monkeypatch.setenv("BALANCEBEAM_TOKEN", "se same")
    assert run(["status"]) == 2
    invalid = capsys.readouterr().err
    assert "BALANCEBEAM_TOKEN: invalid token" in invalid
    for secret in ("sesame", "se same"):
        assert secret not in invalid + missing + wrong


@pytest.mark.parametrize(
    ("received", "message"),
    [
        (b"", "closed the connection without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", UNEXPECTED),
        (b"SSH-2.0-OpenSSH\r\n", "sent an invalid HTTP response"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "sent an invalid HTTP response"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
            "sent an invalid HTTP response",
        ),
        (
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            "sent an invalid HTTP response",
        ),
        (response(b"<html>", content_type="text/html"), f"{UNEXPECTED} (status 200, text/html)"),
        (
            response(b"", "302 Found", extra_headers=b"Location: /\r\n"),
            f"{UNEXPECTED} (status 302",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", f"{UNEXPECTED} (status 204, no media type)"),
        (response(b"[]"), UNEXPECTED),
        (response(b"{}"), UNEXPECTED),
        (response(b'{"status": "error", "data": []}', "500 Oh"), UNEXPECTED),
        (response(b'{"status": "error", "data": "no"}'), UNEXPECTED),
        (response(SUCCESS, "500 Oh"), UNEXPECTED),
        (response(b"\xff\xfe"), UNEXPECTED),
        (response(b"9" * 10000), UNEXPECTED),
        (response(b"[" * 100000), UNEXPECTED),
        (response(b"", content_type="\x1b[31m"), UNEXPECTED),
        (response(SUCCESS)[:-5], "closed the connection in the middle of the response"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + SUCCESS[:-5], UNEXPECTED),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + SUCCESS[:5],
            "closed the connection in the middle of the response",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
            "sent a response of more than 16777216 bytes",
        ),
    ],
)
def test_invalid_responses(capsys: Capture, received: bytes, message: str) -> None:
    """A response that is not one of the admin API ends the command with status 3."""
    with scripted_listener(received) as server:
        assert run(["status", "--admin", server.address]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"balancebeam: {server.address} {message}")
    assert line.isprintable()


@pytest.mark.parametrize(
    "head", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"], ids=["until close", "chunked"]
)
def test_size_limit(capsys: Capture, head: bytes) -> None:
    """A response of unlimited length is read up to the limit only."""

    def serve(connection: socket.socket, number: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        for _ in range(2 * MAX_RESPONSE_BYTES // 65536):
            connection.sendall(b" " * 65536)

    with ScriptedServer(serve) as server:
        assert run(["status", "--admin", server.address]) == 3
    # PyPy's older http.client rejects a chunk of -1 bytes.
    err = capsys.readouterr().err
    assert "of more than 16777216 bytes" in err or "sent an invalid HTTP response" in err


def _silent(connection: socket.socket, number: int) -> None:
    """Read requests and send nothing."""
    connection.recv(1)
    while connection.recv(65536):
        pass


def _dripping(connection: socket.socket, number: int) -> None:
    """Send a response head that does not end, a byte every 20 ms."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    connection.settimeout(0.02)
    while True:
        try:
            if not connection.recv(65536):
                return
        except OSError:
            connection.sendall(b"y")


@pytest.mark.parametrize("serve", [_silent, _dripping])
def test_time_limit(capsys: Capture, serve: Callable[[socket.socket, int], None]) -> None:
    """The time limit is that of the whole response, not of each read."""
    with ScriptedServer(serve) as server:
        assert run(["status", "--timeout", "0.2", "--admin", server.address]) == 3
    assert "did not respond within 0.2 seconds" in capsys.readouterr().err


def test_unreachable_listener(capsys: Capture, tmp_path: Path) -> None:
    """If no connection can be opened, the message has the address and the reason."""
    (tmp_path / "file").touch()
    for address, message in (
        (f"127.0.0.1:{free_port()}", "nothing listens at"),
        (f"unix:{tmp_path}/none", "nothing listens at"),
        (f"unix:/{'x' * 200}", "cannot be reached: AF_UNIX path too long"),
        (f"unix:{tmp_path}/file/x", "cannot be reached: Not a directory"),
        (f"{'x' * 70}:1", "cannot be reached"),
        ("name.invalid:1", "cannot be reached"),
    ):
        assert run(["status", "--admin", address]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert address in line


def test_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first address of a name refuses the connection, the next is tried."""
    with scripted_listener(success([])) as server:
        resolved = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            for port in (free_port(), server.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolved)
        client = AdminClient(parse_admin_address("lb.example:1"))
        assert client.request("GET", "/upstreams") == []
