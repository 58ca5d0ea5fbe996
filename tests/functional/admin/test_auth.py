"""The admin listener: validation of its settings, rejected requests, and limits."""

from __future__ import annotations

import gc
import socket
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin import http_server
from balancebeam.api import single_pool_settings
from balancebeam.config.addresses import parse_listen_address
from balancebeam.config.cross_checks import check_admin, validate_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminSettings, SecretSource, ServerSettings
from tests.helpers.admin import HOST_HEADER, JSON_HEADER, MemoryAdmin, parse_responses
from tests.helpers.processes import TIMEOUT, free_port, read_all, run_balancer


class StartupValidationTests(SynchronousTestCase):
    """Settings of the admin listener that are rejected at start."""

    def problems(self, bind: str, token: str | None = None, frontend: str = "127.0.0.1:1") -> str:
        """The problems of an admin listener at `bind`, a line each."""
        listed = (ServerSettings(TcpAddress("10.0.0.1", 80)),)
        settings = single_pool_settings(listed, (parse_listen_address(frontend),))
        secret = None if token is None else SecretSource(token)
        admin = AdminSettings(parse_listen_address(bind), secret)
        problem = check_admin(admin)
        problems = [] if problem is None else [problem[1]]
        return "\n".join(problems + validate_settings(evolve(settings, admin=admin)))

    def test_other_addresses_need_a_token(self) -> None:
        """An address that is not loopback requires a token."""
        for bind in ("0.0.0.0:1101", "[::]:1101", "192.0.2.1:1101", "tcp:1101", "lb.example:1"):
            self.assertIn("needs a token", self.problems(bind), bind)
            self.assertEqual(self.problems(bind, "t"), "", bind)

    def test_loopback_needs_no_token(self) -> None:
        """Loopback addresses and Unix sockets require no token."""
        for bind in ("127.0.0.1:1101", "127.3.3.3:1101", "[::1]:1101", "localhost:2", "unix:/x"):
            self.assertEqual(self.problems(bind), "", bind)

    def test_invalid_token_is_not_shown(self) -> None:
        """The error about an invalid token does not contain it."""
        problems = self.problems("127.0.0.1:1101", "two words")
        self.assertIn("one word", problems)
        self.assertNotIn("two words", problems)

    def test_invalid_bind_address(self) -> None:
        """The address of a frontend, or one with the PROXY protocol, is rejected."""
        self.assertIn("no frontend uses", self.problems("127.0.0.1:1"))
        self.assertIn("without haproxy:", self.problems("haproxy:127.0.0.1:5", "t"))


class AdminHttpTestCase(SynchronousTestCase):
    """The admin listener in memory, with a token."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin(admin=AdminSettings(token=SecretSource("sesame")))
        self.addCleanup(self.admin.stop)
        self.auth = b"Authorization: Bearer sesame\r\n"

    def exchange(self, *pieces: bytes) -> Any:
        """Send bytes on a new connection, and return the only response."""
        client = self.admin.connect()
        client.send(*pieces)
        (response,) = parse_responses(client.received())
        return response

    def request(self, target: bytes, fields: bytes, method: bytes = b"GET") -> Any:
        """Send a request for `target` with these header lines."""
        return self.exchange(method + b" " + target + b" HTTP/1.1\r\n" + fields + b"\r\n")


class RejectionTests(AdminHttpTestCase):
    """Responses to requests that are not authorized or malformed."""

    def test_token_is_required(self) -> None:
        """Without the token every path and method gets 401."""
        paths = (b"/", b"/upstreams", b"/healthz", b"/metrics", b"/config", b"/nothing", b"*")
        for path in paths:
            for method in (b"GET", b"OPTIONS", b"TRACE", b"BREW", b"DELETE"):
                response = self.request(path, HOST_HEADER, method)
                self.assertEqual(response.status, 401, (method, path))
                self.assertEqual(response.error, "authentication required")
                self.assertIn(b"www-authenticate", response.fields)
        self.assertEqual(self.admin.health_checks, [])

    def test_host_is_checked_first(self) -> None:
        """A wrong Host gets 403, even with the token."""
        for fields in (b"Host: evil.example\r\n", b"", HOST_HEADER + HOST_HEADER):
            self.assertEqual(self.request(b"/upstreams", fields + self.auth).status, 403)

    def test_header_values_that_are_not_utf8(self) -> None:
        """Header values that are not UTF-8 are rejected, and nothing is logged."""
        with capturedLogs() as events:
            for fields, status in (
                (b"Host: \xff\r\n" + self.auth, 403),
                (HOST_HEADER + b"Authorization: Bearer \xff\xfe\r\n", 401),
                (HOST_HEADER + self.auth + b"Origin: \xff\r\n", 403),
                (HOST_HEADER + self.auth + b"Sec-Fetch-Site: \xff\r\n", 403),
                (HOST_HEADER + self.auth + b"Content-Type: \xff\r\nContent-Length: 0\r\n", 415),
            ):
                self.assertEqual(self.request(b"/upstreams", fields).status, status, fields)
        self.assertEqual([formatEvent(event) for event in events], [])

    def test_preflight(self) -> None:
        """A preflight gets 403 without any CORS header."""
        fields = HOST_HEADER + self.auth + b"Origin: http://evil.example\r\n"
        fields += b"Access-Control-Request-Method: POST\r\n"
        response = self.request(b"/register", fields, b"OPTIONS")
        self.assertEqual(response.status, 403)
        self.assertFalse([name for name in response.fields if name.startswith(b"access-control")])

    def test_absolute_form(self) -> None:
        """The authority of a target in absolute-form replaces Host."""
        for target, fields, status in (
            (b"http://127.0.0.1:1101/healthz", b"Host: evil.example\r\n", 200),
            (b"HTTP://localhost/healthz", HOST_HEADER, 200),
            (b"http://127.0.0.1?x", HOST_HEADER, 200),
            (b"http://evil.example/healthz", HOST_HEADER, 403),
            (b"http://127.0.0.1@evil.example/healthz", HOST_HEADER, 403),
            (b"http:///healthz", HOST_HEADER, 403),
        ):
            self.assertEqual(self.request(target, fields + self.auth).status, status, target)

    def test_http_1_0(self) -> None:
        """HTTP/1.0 requests need a Host header too."""
        request = b"GET /healthz HTTP/1.0\r\n" + self.auth
        self.assertEqual(self.exchange(request + b"\r\n").status, 403)
        self.assertEqual(self.exchange(request + HOST_HEADER + b"\r\n").status, 200)

    def test_content_type(self) -> None:
        """A body has to be application/json, with one Content-Type, else 415."""
        for content_type, accepted in (
            *((b"application/json", True), (b"Application/JSON ; charset=utf-8", True)),
            *((b"text/plain", False), (b"application/jsonx", False), (b"", False)),
            *((b"application/x-www-form-urlencoded", False), (b"multipart/form-data", False)),
            *(
                (b"multipart/form-data; boundary=x", False),
                (b"text/plain,application/json", False),
            ),
        ):
            fields = HOST_HEADER + self.auth + b"Content-Type: " + content_type + b"\r\n"
            response = self.admin.request("POST", "/register", b"{}", fields)
            self.assertEqual(response.status, 400 if accepted else 415, content_type)
        for fields in (
            HOST_HEADER + self.auth,
            HOST_HEADER + self.auth + JSON_HEADER + JSON_HEADER,
        ):
            self.assertEqual(self.admin.request("POST", "/register", b"{}", fields).status, 415)

    def test_malformed_requests(self) -> None:
        """A malformed or oversized request gets a JSON error, closes, and logs nothing."""
        fields = HOST_HEADER + self.auth
        chunked = b"POST /register HTTP/1.1\r\n" + fields + b"Transfer-Encoding: chunked\r\n"
        for request, status in (
            (b"garbage\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 400),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
            (b"GET /\xc3\xa9 HTTP/1.1\r\n" + fields + b"\r\n", 400),
            (b"GET / HTTP/1.1\r\nno field\r\n" + fields + b"\r\n", 400),
            (b"GET / HTTP/1.1\r\n" + fields + b"X: \x00\r\n\r\n", 400),
            (chunked + b"Content-Length: 2\r\n\r\n0\r\n\r\n", 400),
            (chunked + b"\r\nzz\r\n", 400),
            (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 600, 400),
            (b"GET /" + b"a" * 60000, 431),
            (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
            (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 18 + b"\r\n\r\n", 413),
        ):
            with capturedLogs() as events:
                response = self.exchange(request)
            self.assertEqual(response.status, status, request[:60])
            self.assertTrue(response.error)
            self.assertEqual(response.fields[b"connection"], b"close")
            self.assertEqual(events, [])


class ResourceLimitTests(AdminHttpTestCase):
    """Limits of bodies, time and connections."""

    def request_head(self, *fields: bytes) -> bytes:
        """The head of a registration with these header lines."""
        return (
            b"POST /register HTTP/1.1\r\n" + HOST_HEADER + JSON_HEADER + b"".join(fields) + b"\r\n"
        )

    def test_content_length_too_large(self) -> None:
        """A large Content-Length gets 413 without 100 Continue; the client can read it."""
        client = self.admin.connect()
        length = b"Content-Length: %d\r\n" % (http_server.MAX_BODY + 1)
        client.send(self.request_head(length, b"Expect: 100-continue\r\n"))
        data = client.received()
        self.assertNotIn(b"100 Continue", data)
        (response,) = parse_responses(data)
        self.assertEqual((response.status, response.error), (413, "the request body is too large"))
        # The connection stays open for reading, so that the client gets the response.
        self.assertTrue(client.transport.write_closed)
        self.assertFalse(client.transport.disconnecting)
        client.send(b"x" * 70000, b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(client.received(), b"")
        self.admin.balancer.advance(http_server.LINGERING_TIMEOUT + 0.2)
        self.assertTrue(client.transport.disconnecting)

    def test_chunked_body_too_large(self) -> None:
        """A chunked body gets 413 as soon as it exceeds the limit."""
        client = self.admin.connect()
        client.send(self.request_head(b"Transfer-Encoding: chunked\r\n"))
        for _ in range(8):
            client.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        self.assertEqual(client.received(), b"")
        client.send(b"1\r\nx\r\n", b"0\r\n\r\n")
        (response,) = parse_responses(client.received())
        self.assertEqual(response.status, 413)

    def test_largest_body(self) -> None:
        """A body of exactly the limit is accepted, chunked or not."""
        for length in (b"Content-Length: %d\r\n" % http_server.MAX_BODY, b""):
            coding = b"" if length else b"Transfer-Encoding: chunked\r\n"
            client = self.admin.connect()
            client.send(self.request_head(self.auth, length, coding))
            body = b"x" * http_server.MAX_BODY
            client.send(body if length else b"10000\r\n" + body + b"\r\n0\r\n\r\n")
            (response,) = parse_responses(client.received())
            self.assertEqual(response.status, 400)

    def test_idle_client(self) -> None:
        """An idle connection is closed after the request timeout."""
        client = self.admin.connect()
        self.admin.balancer.advance(http_server.REQUEST_TIMEOUT - 1)
        self.assertFalse(client.transport.disconnecting)
        self.admin.balancer.advance(2)
        self.assertTrue(client.transport.disconnecting)

    def test_slow_client(self) -> None:
        """Received bytes do not extend the time for a request."""
        for request in (
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100,
            self.request_head(b"Content-Length: 60000\r\n") + b"x" * 600,
        ):
            client = self.admin.connect()
            for position in range(0, len(request), 10):
                if not client.transport.disconnecting:
                    client.send(request[position : position + 10])
                    self.admin.balancer.clock.advance(2)
            self.assertTrue(client.transport.disconnecting)

    def test_timeout_per_request(self) -> None:
        """Each response starts the request timeout anew."""
        client = self.admin.connect()
        for _ in range(4):
            self.admin.balancer.advance(http_server.REQUEST_TIMEOUT - 5)
            client.send(b"GET /healthz HTTP/1.1\r\n" + HOST_HEADER + self.auth + b"\r\n")
            (response,) = parse_responses(client.received())
            self.assertEqual(response.status, 200)
        self.assertFalse(client.transport.disconnecting)

    def test_client_that_does_not_close(self) -> None:
        """A connection that the client does not close is aborted."""
        client = self.admin.connect()
        self.admin.balancer.advance(http_server.REQUEST_TIMEOUT + 20)
        self.assertTrue(client.transport.aborted)

    def test_connection_limit(self) -> None:
        """At the limit of connections a new one closes the oldest."""
        first, *others = (self.admin.connect() for _ in range(http_server.MAX_CONNECTIONS))
        self.assertFalse(first.transport.aborted)
        newest = self.admin.connect()
        self.assertTrue(first.transport.aborted)
        self.assertFalse(any(client.transport.aborted for client in (*others, newest)))
        self.assertEqual(len(self.admin.service.site.connections), http_server.MAX_CONNECTIONS)

    def test_stop_with_open_connections(self) -> None:
        """Stopping aborts idle connections; others are closed after their response."""
        idle, halfway = self.admin.connect(), self.admin.connect()
        halfway.send(b"GET / HT")
        fields = HOST_HEADER + JSON_HEADER + self.auth
        registering = self.admin.start_request(
            "POST", "/register", {"address": "10.1.1.1:80"}, fields
        )
        self.admin.service.stopService()
        for client in (idle, halfway):
            self.assertTrue(client.transport.aborted)
            client.close()
        self.assertFalse(registering.transport.disconnecting)
        self.admin.pass_check()
        (response,) = parse_responses(registering.received())
        self.assertEqual(response.status, 200)
        self.assertTrue(registering.transport.disconnecting)
        registering.close()
        self.assertFalse(self.admin.service.site.connections)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


def http_request(
    listener: int | Path, target: str, token: str, method: str = "GET"
) -> tuple[int, bytes]:
    """Send a request to a real process; return the status and body of the response."""
    family = socket.AF_INET if isinstance(listener, int) else socket.AF_UNIX
    address = ("127.0.0.1", listener) if isinstance(listener, int) else str(listener)
    with socket.socket(family) as client:
        client.settimeout(TIMEOUT)
        client.connect(address)
        fields = f"Host: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
        client.sendall(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode())
        (response,) = parse_responses(read_all(client))
        return response.status, response.body


def test_token_is_replaced_by_reload(tmp_path: Path) -> None:
    """A reload replaces the token, for open connections too; no token is ever shown."""
    port, token = free_port(), tmp_path / "token"
    token.write_text("first-secret\n")
    options = ["--admin", f"127.0.0.1:{port}", "--admin-token-file", str(token)]
    with run_balancer(tmp_path, "--demo", "1", *options) as running:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            token.write_text("second-secret\n")
            assert http_request(port, "/healthz", "first-secret")[0] == 200
            assert http_request(port, "/reload", "first-secret", "POST")[0] == 200
            assert http_request(port, "/healthz", "first-secret")[0] == 401
            auth = b"Authorization: Bearer first-secret\r\n"
            client.sendall(b"GET /config HTTP/1.1\r\n" + HOST_HEADER + auth + b"\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
            status, config = http_request(port, "/config", "second-secret")
            assert (status, b"secret" in config.replace(str(token).encode(), b"")) == (200, False)
            # The open connection does not prevent the process from stopping.
            assert running.stop() == 0
    output = running.output.read_text()
    assert "secret" not in output, output


def test_unix_socket_and_endpoint(tmp_path: Path) -> None:
    """The listener can be a Unix socket, or an endpoint, which has no host names."""
    token = tmp_path / "token"
    token.write_text("sesame\n")
    path = tmp_path / "admin.sock"
    with run_balancer(tmp_path, "--demo", "1", "--admin", f"unix:{path}"):
        assert http_request(path, "/healthz", "")[0] == 200
    port = free_port()
    options = ["--admin", f"tcp:{port}:interface=127.0.0.1", "--admin-token-file", str(token)]
    with run_balancer(tmp_path, "--demo", "1", *options):
        # It is unknown where an endpoint can be reached from: it has no host names.
        assert http_request(port, "/healthz", "sesame")[0] == 403
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            client.sendall(b"POST /register HTTP/1.1\r\nContent-Length: 900000\r\n\r\n")
            for _ in range(9):
                client.sendall(b"x" * 100000)
            # The whole body was sent, and the response can be read.
            (response,) = parse_responses(read_all(client))
            assert response.status == 413
