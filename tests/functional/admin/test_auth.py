"""Who is let in to the admin listener, and what becomes of those who are not."""

from __future__ import annotations

import base64
import gc
import os
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin import http_server as site
from balancebeam.admin.auth import Authorizer, RequestInfo
from balancebeam.admin.service import build_authorizer
from balancebeam.api import single_pool_settings
from balancebeam.config.addresses import parse_listen_address
from balancebeam.config.cross_checks import check_admin, validate_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminSettings, SecretSource, ServerSettings
from tests.helpers.admin import HOST_HEADER, JSON_HEADER, MemoryAdmin, parse_responses
from tests.helpers.processes import TIMEOUT, free_port, read_all, run_balancer

TOKEN = b"sesame"


class HostHeaderTests(SynchronousTestCase):
    """What it may be called."""

    def allowed(self, authorizer: Authorizer, host: str) -> bool:
        return authorizer.authorize(RequestInfo([host])) is None

    def test_addresses_are_always_right(self) -> None:
        authorizer = Authorizer(None, ())
        for host in ("127.0.0.1", "127.0.0.1:1101", "10.9.8.7", "[::1]", "[::1]:80", "127.0.0.1."):
            self.assertTrue(self.allowed(authorizer, host), host)

    def test_other_names_are_not(self) -> None:
        authorizer = Authorizer(None, ("admin.example",))
        for host in (
            *("evil.example", "admin.example.evil", "xadmin.example", "localhost", ""),
            *("user@127.0.0.1", "127.0.0.1:", "127.0.0.1:999999", "127.0.0.1:x", "127.0.0.1/"),
            *("127.1", "0x7f.0.0.1", "2130706433", "::1", "[evil]", "[]", "127.0.0.1, evil"),
            *("127.0.0.1 ", "127.0.0.1\xa0", "①27.0.0.1", "127.0.0.1\n"),
        ):
            self.assertFalse(self.allowed(authorizer, host), host)

    def test_names_without_regard_to_case_port_and_trailing_dot(self) -> None:
        authorizer = Authorizer(None, ("Admin.Example",))
        for host in ("admin.example", "ADMIN.example:1", "admin.example."):
            self.assertTrue(self.allowed(authorizer, host), host)

    def test_exactly_one(self) -> None:
        authorizer = Authorizer(None, ())
        for hosts in ([], ["127.0.0.1", "127.0.0.1"]):
            refused = authorizer.authorize(RequestInfo(hosts))
            assert refused is not None
            self.assertEqual(refused.status, 403)

    def test_localhost_counts_for_loopback_only(self) -> None:
        token = SecretSource("t")
        for bind, counts in (
            *(("127.0.0.1:1", True), ("127.8.8.8:1", True), ("[::1]:1", True)),
            *(("localhost:1", True), ("unix:/x", True), ("0.0.0.0:1", False)),
            *(("[::]:1", False), ("192.0.2.1:1", False), ("tcp:1", False)),
        ):
            authorizer = build_authorizer(AdminSettings(parse_listen_address(bind), token))
            asking = RequestInfo(["localhost"], authorizations=["Bearer t"])
            self.assertEqual(authorizer.authorize(asking) is None, counts, bind)

    def test_the_name_it_was_bound_as(self) -> None:
        authorizer = build_authorizer(AdminSettings(TcpAddress("lb.example", 1), SecretSource("t")))
        asking = RequestInfo(["lb.example"], authorizations=["Bearer t"])
        self.assertIsNone(authorizer.authorize(asking))


class TokenTests(SynchronousTestCase):
    """Who knows the token."""

    def status(self, *authorizations: str) -> int:
        asking = RequestInfo(["127.0.0.1"], authorizations=authorizations)
        refused = Authorizer(TOKEN, ()).authorize(asking)
        return 200 if refused is None else refused.status

    def test_it_is_asked_for(self) -> None:
        self.assertEqual(self.status("Bearer sesame"), 200)
        self.assertEqual(self.status("bEARER   sesame "), 200)
        for wrong in (
            *("", "Bearer", "Bearer ", "sesame", "Basic sesame", "Bearer sesam", "Bearer sesamee"),
            *("Bearer\tsesame", "Bearer sesame, Bearer sesame", "Bearer SESAME", "Bearer s\u0435"),
            *("BearerX sesame", "Bearer ses\udc80ame", "Bearer " + "x" * 10000),
        ):
            self.assertEqual(self.status(wrong), 401, wrong)

    def test_as_a_browser_gives_it(self) -> None:
        def basic(said: bytes) -> str:
            return f"Basic {base64.b64encode(said).decode()}"

        for right in (b"me:sesame", b":sesame", "é:sesame".encode()):
            self.assertEqual(self.status(basic(right)), 200, right)
        self.assertEqual(self.status(basic(b":sesame").replace("Basic", "bASIC ")), 200)
        for wrong in (
            *(b"sesame", b"sesame:", b"me:sesam", b"me:x:sesame", b"me:sesame\n", b"", b":"),
            *(b"me:\xff\xfe", b":" + b"x" * 10000),
        ):
            self.assertEqual(self.status(basic(wrong)), 401, wrong)
        for no_password in (
            basic(b"me:sesame").replace("Basic", "Bearer"),
            basic(b"you:sesame").rstrip("="),
            *("Basic", "Basic ", "Basic me:sesame", "Basic !" + basic(b"me:sesame")[6:]),
            *("Basic \udc80", "Basic é"),
        ):
            self.assertEqual(self.status(no_password), 401, no_password)

    def test_once(self) -> None:
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.status("Bearer sesame", "Bearer sesame"), 401)

    def test_compared_in_constant_time(self) -> None:
        with mock.patch("balancebeam.admin.auth.hmac.compare_digest", return_value=True) as compare:
            self.assertEqual(self.status("Bearer other"), 200)
        compare.assert_called_once_with(b"other", TOKEN)

    def test_it_is_not_shown(self) -> None:
        authorizer = Authorizer(TOKEN, ())
        settings = AdminSettings(token=SecretSource("sesame"))
        for shown in (repr(authorizer), str(authorizer), repr(settings), repr(settings.token)):
            self.assertNotIn("sesame", shown)

    def test_the_challenge(self) -> None:
        refused = Authorizer(TOKEN, ()).authorize(RequestInfo(["127.0.0.1"]))
        assert refused is not None
        names, challenges = zip(*refused.headers)
        self.assertEqual(set(names), {b"WWW-Authenticate"})
        self.assertEqual([one.partition(b" ")[0] for one in challenges], [b"Bearer", b"Basic"])

    def test_a_token_file_is_read_each_time(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "token")
            settings = AdminSettings(token=SecretSource(file=path))
            for content in (b"one\n", b" two \r\n"):
                with open(path, "wb") as file:
                    file.write(content)
                word = content.strip().decode()
                asking = RequestInfo(["127.0.0.1"], authorizations=[f"Bearer {word}"])
                self.assertIsNone(build_authorizer(settings).authorize(asking))
            for bad in (b"", b" \n", b"two words", b"caf\xc3\xa9", b"a\x00b", b"x" * 5000):
                with open(path, "wb") as file:
                    file.write(bad)
                error = self.assertRaises(ValueError, build_authorizer, settings)
                self.assertNotIn("words", str(error))
            os.unlink(path)
            self.assertRaises(ValueError, build_authorizer, settings)

    def test_odd_octets_in_a_variable(self) -> None:
        with mock.patch.dict(os.environb, {b"BB_TOKEN": b"ab\xffcd"}):
            settings = AdminSettings(token=SecretSource(variable="BB_TOKEN"))
            error = self.assertRaises(ValueError, build_authorizer, settings)
        self.assertIn("BB_TOKEN", str(error))
        self.assertNotIn("xff", repr(error))


class CrossOriginTests(SynchronousTestCase):
    """Pages in the operator's browser."""

    def status(self, **given: Any) -> int:
        refused = Authorizer(None, ("localhost",)).authorize(
            RequestInfo(["localhost:1101"], **given)
        )
        return 200 if refused is None else refused.status

    def test_origins(self) -> None:
        self.assertEqual(self.status(origins=["http://localhost:1101"]), 200)
        self.assertEqual(self.status(origins=["HTTP://LOCALHOST:1101"]), 200)
        for origin in (
            *("null", "", "http://evil.example", "http://localhost", "http://localhost:1102"),
            *("file://", "localhost:1101", "http://localhost:1101.evil", "http://127.0.0.1:1101"),
        ):
            self.assertEqual(self.status(origins=[origin]), 403, origin)
        self.assertEqual(self.status(origins=["http://localhost:1101", "null"]), 403)

    def test_fetch_metadata(self) -> None:
        for sites, status in (
            *((["none"], 200), (["same-origin"], 200), (["cross-site"], 403)),
            # Another port of this machine is of the same site, and anybody's.
            *((["same-site"], 403), (["?"], 403), (["none", "cross-site"], 403)),
        ):
            self.assertEqual(self.status(sites=sites), status, sites)

    def test_preflights(self) -> None:
        self.assertEqual(self.status(preflight=True), 403)
        self.assertEqual(self.status(preflight=True, origins=["http://localhost:1101"]), 403)


class StartupValidationTests(SynchronousTestCase):
    """What the program refuses to start with."""

    def problems(self, bind: str, token: str | None = None, frontend: str = "127.0.0.1:1") -> str:
        listed = (ServerSettings(TcpAddress("10.0.0.1", 80)),)
        settings = single_pool_settings(listed, (parse_listen_address(frontend),))
        secret = None if token is None else SecretSource(token)
        admin = AdminSettings(parse_listen_address(bind), secret)
        problem = check_admin(admin)
        found = [] if problem is None else [problem[1]]
        return "\n".join(found + validate_settings(evolve(settings, admin=admin)))

    def test_other_addresses_need_a_token(self) -> None:
        for bind in ("0.0.0.0:1101", "[::]:1101", "192.0.2.1:1101", "tcp:1101", "lb.example:1"):
            self.assertIn("needs a token", self.problems(bind), bind)
            self.assertEqual(self.problems(bind, "t"), "", bind)

    def test_loopback_does_not(self) -> None:
        for bind in ("127.0.0.1:1101", "127.3.3.3:1101", "[::1]:1101", "localhost:2", "unix:/x"):
            self.assertEqual(self.problems(bind), "", bind)

    def test_a_bad_token_is_not_shown(self) -> None:
        problems = self.problems("127.0.0.1:1101", "two words")
        self.assertIn("one word", problems)
        self.assertNotIn("two words", problems)

    def test_an_address_that_is_no_place_for_it(self) -> None:
        self.assertIn("no frontend uses", self.problems("127.0.0.1:1"))
        self.assertIn("without haproxy:", self.problems("haproxy:127.0.0.1:5", "t"))


class AdminHttpTestCase(SynchronousTestCase):
    """The admin listener in memory."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin(admin=AdminSettings(token=SecretSource("sesame")))
        self.addCleanup(self.admin.stop)
        self.auth = b"Authorization: Bearer sesame\r\n"

    def raw(self, *pieces: bytes) -> Any:
        """What is answered to octets."""
        client = self.admin.connect()
        client.send(*pieces)
        (reply,) = parse_responses(client.received())
        return reply

    def get(self, target: bytes, fields: bytes, method: bytes = b"GET") -> Any:
        return self.raw(method + b" " + target + b" HTTP/1.1\r\n" + fields + b"\r\n")


class RejectionTests(AdminHttpTestCase):
    """Refusals on the wire."""

    def test_nothing_is_answered_without_the_token(self) -> None:
        paths = (b"/", b"/upstreams", b"/healthz", b"/metrics", b"/config", b"/nothing", b"*")
        for path in paths:
            for method in (b"GET", b"OPTIONS", b"TRACE", b"BREW", b"DELETE"):
                reply = self.get(path, HOST_HEADER, method)
                self.assertEqual(reply.status, 401, (method, path))
                self.assertEqual(reply.error, "the token is wanted")
                self.assertIn(b"www-authenticate", reply.fields)
        self.assertEqual(self.admin.health_checks, [])

    def test_names_come_first(self) -> None:
        for fields in (b"Host: evil.example\r\n", b"", HOST_HEADER + HOST_HEADER):
            self.assertEqual(self.get(b"/upstreams", fields + self.auth).status, 403)

    def test_octets_that_are_no_text(self) -> None:
        with capturedLogs() as events:
            for fields, status in (
                (b"Host: \xff\r\n" + self.auth, 403),
                (HOST_HEADER + b"Authorization: Bearer \xff\xfe\r\n", 401),
                (HOST_HEADER + self.auth + b"Origin: \xff\r\n", 403),
                (HOST_HEADER + self.auth + b"Sec-Fetch-Site: \xff\r\n", 403),
                (HOST_HEADER + self.auth + b"Content-Type: \xff\r\nContent-Length: 0\r\n", 415),
            ):
                self.assertEqual(self.get(b"/upstreams", fields).status, status, fields)
        self.assertEqual([formatEvent(event) for event in events], [])

    def test_preflight(self) -> None:
        fields = HOST_HEADER + self.auth + b"Origin: http://evil.example\r\n"
        fields += b"Access-Control-Request-Method: POST\r\n"
        reply = self.get(b"/register", fields, b"OPTIONS")
        self.assertEqual(reply.status, 403)
        self.assertFalse([name for name in reply.fields if name.startswith(b"access-control")])

    def test_absolute_targets(self) -> None:
        """Their authority counts, and not the field."""
        for target, fields, status in (
            (b"http://127.0.0.1:1101/healthz", b"Host: evil.example\r\n", 200),
            (b"HTTP://localhost/healthz", HOST_HEADER, 200),
            (b"http://127.0.0.1?x", HOST_HEADER, 200),
            (b"http://evil.example/healthz", HOST_HEADER, 403),
            (b"http://127.0.0.1@evil.example/healthz", HOST_HEADER, 403),
            (b"http:///healthz", HOST_HEADER, 403),
        ):
            self.assertEqual(self.get(target, fields + self.auth).status, status, target)

    def test_http_1_0(self) -> None:
        request = b"GET /healthz HTTP/1.0\r\n" + self.auth
        self.assertEqual(self.raw(request + b"\r\n").status, 403)
        self.assertEqual(self.raw(request + HOST_HEADER + b"\r\n").status, 200)

    def test_content_types(self) -> None:
        for kind, fine in (
            *((b"application/json", True), (b"Application/JSON ; charset=utf-8", True)),
            *((b"text/plain", False), (b"application/jsonx", False), (b"", False)),
            *((b"application/x-www-form-urlencoded", False), (b"multipart/form-data", False)),
            *(
                (b"multipart/form-data; boundary=x", False),
                (b"text/plain,application/json", False),
            ),
        ):
            fields = HOST_HEADER + self.auth + b"Content-Type: " + kind + b"\r\n"
            reply = self.admin.request("POST", "/register", b"{}", fields)
            self.assertEqual(reply.status, 400 if fine else 415, kind)
        for fields in (
            HOST_HEADER + self.auth,
            HOST_HEADER + self.auth + JSON_HEADER + JSON_HEADER,
        ):
            self.assertEqual(self.admin.request("POST", "/register", b"{}", fields).status, 415)

    def test_what_cannot_be_read(self) -> None:
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
                reply = self.raw(request)
            self.assertEqual(reply.status, status, request[:60])
            self.assertTrue(reply.error)
            self.assertEqual(reply.fields[b"connection"], b"close")
            self.assertEqual(events, [])


class ResourceLimitTests(AdminHttpTestCase):
    """What one client, or many of them, can use up."""

    def head(self, *fields: bytes) -> bytes:
        return (
            b"POST /register HTTP/1.1\r\n" + HOST_HEADER + JSON_HEADER + b"".join(fields) + b"\r\n"
        )

    def test_a_body_that_says_it_is_too_large(self) -> None:
        client = self.admin.connect()
        length = b"Content-Length: %d\r\n" % (site.MAX_BODY + 1)
        client.send(self.head(length, b"Expect: 100-continue\r\n"))
        data = client.received()
        self.assertNotIn(b"100 Continue", data)
        (reply,) = parse_responses(data)
        self.assertEqual((reply.status, reply.error), (413, "the request body is too large"))
        # It may go on sending, and can still read why it should not.
        self.assertTrue(client.transport.write_closed)
        self.assertFalse(client.transport.disconnecting)
        client.send(b"x" * 70000, b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(client.received(), b"")
        self.admin.balancer.advance(site.LINGERING_TIMEOUT + 0.2)
        self.assertTrue(client.transport.disconnecting)

    def test_a_body_that_does_not_say_so(self) -> None:
        client = self.admin.connect()
        client.send(self.head(b"Transfer-Encoding: chunked\r\n"))
        for _ in range(8):
            client.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        self.assertEqual(client.received(), b"")
        client.send(b"1\r\nx\r\n", b"0\r\n\r\n")
        (reply,) = parse_responses(client.received())
        self.assertEqual(reply.status, 413)

    def test_the_largest_body(self) -> None:
        for length in (b"Content-Length: %d\r\n" % site.MAX_BODY, b""):
            coding = b"" if length else b"Transfer-Encoding: chunked\r\n"
            client = self.admin.connect()
            client.send(self.head(self.auth, length, coding))
            body = b"x" * site.MAX_BODY
            client.send(body if length else b"10000\r\n" + body + b"\r\n0\r\n\r\n")
            (reply,) = parse_responses(client.received())
            self.assertEqual(reply.status, 400)

    def test_an_idle_client(self) -> None:
        client = self.admin.connect()
        self.admin.balancer.advance(site.REQUEST_TIMEOUT - 1)
        self.assertFalse(client.transport.disconnecting)
        self.admin.balancer.advance(2)
        self.assertTrue(client.transport.disconnecting)

    def test_a_slow_client(self) -> None:
        """Octets do not prolong its time."""
        for request in (
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100,
            self.head(b"Content-Length: 60000\r\n") + b"x" * 600,
        ):
            client = self.admin.connect()
            for position in range(0, len(request), 10):
                if not client.transport.disconnecting:
                    client.send(request[position : position + 10])
                    self.admin.balancer.clock.advance(2)
            self.assertTrue(client.transport.disconnecting)

    def test_each_request_has_its_time(self) -> None:
        client = self.admin.connect()
        for _ in range(4):
            self.admin.balancer.advance(site.REQUEST_TIMEOUT - 5)
            client.send(b"GET /healthz HTTP/1.1\r\n" + HOST_HEADER + self.auth + b"\r\n")
            (reply,) = parse_responses(client.received())
            self.assertEqual(reply.status, 200)
        self.assertFalse(client.transport.disconnecting)

    def test_who_does_not_go(self) -> None:
        client = self.admin.connect()
        self.admin.balancer.advance(site.REQUEST_TIMEOUT + 20)
        self.assertTrue(client.transport.aborted)

    def test_many_clients(self) -> None:
        first, *others = (self.admin.connect() for _ in range(site.MAX_CONNECTIONS))
        self.assertFalse(first.transport.aborted)
        newest = self.admin.connect()
        self.assertTrue(first.transport.aborted)
        self.assertFalse(any(one.transport.aborted for one in (*others, newest)))
        self.assertEqual(len(self.admin.service.site.connections), site.MAX_CONNECTIONS)

    def test_stopping_with_open_connections(self) -> None:
        idle, halfway = self.admin.connect(), self.admin.connect()
        halfway.send(b"GET / HT")
        fields = HOST_HEADER + JSON_HEADER + self.auth
        asking = self.admin.start_request("POST", "/register", {"address": "10.1.1.1:80"}, fields)
        self.admin.service.stopService()
        for client in (idle, halfway):
            self.assertTrue(client.transport.aborted)
            client.close()
        self.assertFalse(asking.transport.disconnecting)
        self.admin.pass_check()
        (reply,) = parse_responses(asking.received())
        self.assertEqual(reply.status, 200)
        self.assertTrue(asking.transport.disconnecting)
        asking.close()
        self.assertFalse(self.admin.service.site.connections)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


def curl(place: int | Path, target: str, token: str, method: str = "GET") -> tuple[int, bytes]:
    """The status and the body of what is answered by a program, on a TCP port or a Unix socket."""
    family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
    where = ("127.0.0.1", place) if isinstance(place, int) else str(place)
    with socket.socket(family) as client:
        client.settimeout(TIMEOUT)
        client.connect(where)
        fields = f"Host: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
        client.sendall(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode())
        (reply,) = parse_responses(read_all(client))
        return reply.status, reply.body


def test_a_token_that_changes(tmp_path: Path) -> None:
    """The new one counts from the reload on, also for who is connected; none is ever shown."""
    port, token = free_port(), tmp_path / "token"
    token.write_text("first-secret\n")
    options = ["--admin", f"127.0.0.1:{port}", "--admin-token-file", str(token)]
    with run_balancer(tmp_path, "--demo", "1", *options) as running:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connected:
            token.write_text("second-secret\n")
            assert curl(port, "/healthz", "first-secret")[0] == 200
            assert curl(port, "/reload", "first-secret", "POST")[0] == 200
            assert curl(port, "/healthz", "first-secret")[0] == 401
            auth = b"Authorization: Bearer first-secret\r\n"
            connected.sendall(b"GET /config HTTP/1.1\r\n" + HOST_HEADER + auth + b"\r\n")
            assert connected.recv(1000).startswith(b"HTTP/1.1 401 ")
            status, shown = curl(port, "/config", "second-secret")
            assert (status, b"secret" in shown.replace(str(token).encode(), b"")) == (200, False)
            # It stops although somebody is connected.
            assert running.stop() == 0
    output = running.output.read_text()
    assert "secret" not in output, output


def test_on_a_unix_socket_and_an_endpoint(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    place = tmp_path / "admin.sock"
    with run_balancer(tmp_path, "--demo", "1", "--admin", f"unix:{place}"):
        assert curl(place, "/healthz", "")[0] == 200
    port = free_port()
    options = ["--admin", f"tcp:{port}:interface=127.0.0.1", "--admin-token-file", str(token)]
    with run_balancer(tmp_path, "--demo", "1", *options):
        # Of an endpoint nobody knows who can reach it: it has no names.
        assert curl(port, "/healthz", "sesame")[0] == 403
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            client.sendall(b"POST /register HTTP/1.1\r\nContent-Length: 900000\r\n\r\n")
            for _ in range(9):
                client.sendall(b"x" * 100000)
            # All of it was sent, and the answer can be read.
            (reply,) = parse_responses(read_all(client))
            assert reply.status == 413
