"""Access logs of whole balancers: HTTP, twisted.web, TCP, reloads."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from balancebeam.api import single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    ForwardingSettings,
    FrontendSettings,
    LimitSettings,
    ServerSettings,
    Settings,
)
from balancebeam.downstream.tcp.client import ClientRelay
from balancebeam.observability.access_log_json import KEYS
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.timestamps import local_time
from tests.helpers.access_log import COMBINED
from tests.helpers.files import temporary_log_path
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer
from tests.helpers.processes import (
    ScriptedServer,
    read_all,
    read_head,
    respond_with,
    run_balancer,
    wait_until,
)

BROWSER = (
    b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
    b"Referer: https://example.org/\r\n\r\n"
)

BODY = b"\r\nContent-Length: 4\r\n\r\nfour"


def logging_settings(servers: int = 1, **frontend: Any) -> Settings:
    """Settings of one frontend with these options, and of `servers` servers."""
    listed = [ServerSettings(TcpAddress(f"10.0.0.{number + 1}", 80)) for number in range(servers)]
    defaults = single_pool_settings(tuple(listed), bind=())
    return evolve(defaults, frontends=(evolve(defaults.frontends[0], **frontend),))


class AccessLogTestCase(SynchronousTestCase):
    """Balancers in memory with an access log."""

    def setUp(self) -> None:
        self.path = temporary_log_path(self)

    def start_balancer(self, style: str = "json", **more: Any) -> MemoryBalancer:
        """A balancer with an access log in this format; its clock shows 1 000 000 000."""
        balancer = MemoryBalancer.from_settings(
            logging_settings(access_log=str(self.path), access_log_format=style, **more)
        )
        self.addCleanup(balancer.stop)
        balancer.clock.advance(1_000_000_000 - balancer.clock.seconds())
        return balancer

    def log_lines(self, balancer: MemoryBalancer) -> list[str]:
        """The lines that were written."""
        balancer.advance(2)
        return self.path.read_text().splitlines()

    def log_objects(self, balancer: MemoryBalancer) -> list[dict[str, Any]]:
        """The JSON objects that were written."""
        return [json.loads(line) for line in self.log_lines(balancer)]


class HttpAccessLogTests(AccessLogTestCase):
    """Requests of HTTP frontends."""

    def test_combined_format(self) -> None:
        """A request makes a line in the combined format of Apache and nginx."""
        balancer = self.start_balancer("combined")
        client = balancer.client()
        client.send(BROWSER)
        server = balancer.accept()
        server.send(OK)
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        first, second = self.log_lines(balancer)
        when = local_time(1_000_000_000)
        self.assertEqual(
            first,
            f'192.0.2.1 - - [{when}] "GET /a?b=c HTTP/1.1" 200 5 '
            '"https://example.org/" "Mozilla/5.0 (X11)"',
        )
        self.assertEqual(second, f'192.0.2.1 - - [{when}] "HEAD / HTTP/1.1" 204 0 "-" "-"')

    def test_rejected_requests(self) -> None:
        """A rejected request is logged with its first line, escaped, and its status."""
        for style in ("combined", "json"):
            balancer = self.start_balancer(style, max_body=10)
            self.path.write_text("")
            rejected = (
                (b"\r\nGET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400, r"GET /a\x09b HTTP/1.1"),
                (b'\x16\x03"\\\n\r\n\r\n', 400, r"\x16\x03\x22\x5C"),
                (b"GET /" + b"x" * 9000, 414, "GET /" + "x" * 2043),
                (
                    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
                    413,
                    "POST / HTTP/1.1",
                ),
                (b"HEAD / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "HEAD / HTTP/3.0"),
                (b"GET / HTTP/1.1\r\nHo", 408, "GET / HTTP/1.1"),
            )
            responses = []
            for sent, _, _ in rejected:
                client = balancer.client()
                client.send(sent)
                balancer.advance(12)
                responses.append(client.received().partition(b"\r\n\r\n"))
            lines = self.path.read_text().splitlines()
            self.assertEqual(len(lines), len(rejected))
            for line, (_, status, shown), (head, _, body) in zip(lines, rejected, responses):
                self.assertIn(b" %d " % status, head[:14])
                if style == "combined":
                    self.assertRegex(line + "\n", COMBINED)
                    self.assertIn(f'] "{shown}" {status} {len(body)} "-" "-"', line)
                else:
                    fields = json.loads(line)
                    self.assertEqual((fields["status"], fields["bytes_sent"]), (status, len(body)))
                    self.assertEqual((fields["client"], fields["frontend"]), ("192.0.2.1", "web"))
                    self.assertEqual(tuple(fields), KEYS)
                    # A client that does not complete its request has stalled.
                    ended = "client" if status == 408 else "refused"
                    self.assertEqual(fields["ended"], ended)
                    self.assertTrue(fields["id"] and fields["target"] and fields["reason"])

    def test_malformed_body(self) -> None:
        """A request that is rejected for its body is logged once."""
        balancer = self.start_balancer()
        client = balancer.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
        (fields,) = self.log_objects(balancer)
        self.assertEqual((fields["target"], fields["status"]), ("/a", 400))

    def test_json(self) -> None:
        """The JSON format has all fields of the request and its response."""
        balancer = self.start_balancer(forwarding=ForwardingSettings(request_id="make"))
        client = balancer.client()
        client.send(BROWSER.replace(b"GET", b"POST").replace(b"\r\n\r\n", BODY))
        server = balancer.accept()
        sent = server.received()
        balancer.clock.advance(0.25)
        server.send(OK)
        (fields,) = self.log_objects(balancer)
        self.assertEqual(tuple(fields), KEYS)
        self.assertIn(f"X-Request-Id: {fields.pop('id')}\r\n".encode(), sent)
        for key in ("duration", "connect", "first_byte"):
            self.assertLess(0, fields.pop(key), key)
        (only,) = fields.pop("tries")
        self.assertLess(0, only.pop("seconds"))
        self.assertEqual(only, {"server": "10.0.0.1:80", "result": "200"})
        self.assertEqual(
            fields,
            {
                "time": "2001-09-09T01:46:40.250Z",
                "frontend": "web",
                "route": "",
                "pool": "app",
                "client": "192.0.2.1",
                "method": "POST",
                "host": "example.org",
                "target": "/a?b=c",
                "protocol": "HTTP/1.1",
                "tls": None,
                "status": 200,
                "bytes_received": 4,
                "bytes_sent": 5,
                "queue": None,
                "server": "10.0.0.1:80",
                "reason": fields["reason"],
                "limit": None,
                "ended": "complete",
                "referer": "https://example.org/",
                "user_agent": "Mozilla/5.0 (X11)",
            },
        )
        self.assertTrue(fields["reason"])

    def test_made_ids(self) -> None:
        """Without X-Request-Id each request gets an id of its own; a client's is not used."""
        balancer = self.start_balancer()
        client = balancer.client()
        request = GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: own\r\n\r\n")
        client.send(request + request)
        server = balancer.accept()
        server.send(OK)
        server.send(OK)
        one, two = (fields["id"] for fields in self.log_objects(balancer))
        self.assertNotEqual(one, two)
        self.assertNotIn("own", (one, two))

    def test_local_replies(self) -> None:
        """Errors of the proxy are logged with attempted servers and failure."""
        balancer = self.start_balancer(limits=(LimitSettings(1),), servers=2)
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        balancer.connectors[0].refuse()
        balancer.connectors[1].refuse()
        body = client.received().partition(b"\r\n\r\n")[2]
        balancer.finish_closing()
        client = balancer.client()
        client.send(GET)
        rejected = client.received().partition(b"\r\n\r\n")[2]
        failed, limited = self.log_objects(balancer)
        self.assertEqual((failed["status"], failed["bytes_sent"]), (502, len(body)))
        tries = [(item["server"], item["result"][:20]) for item in failed["tries"]]
        result = "could not be reached"
        self.assertEqual(tries, [("10.0.0.1:80", result), ("10.0.0.2:80", result)])
        self.assertEqual((failed["server"], failed["ended"]), ("10.0.0.2:80", "server"))
        self.assertEqual((failed["protocol"], failed["host"]), ("HTTP/1.0", None))
        self.assertEqual((limited["status"], limited["bytes_sent"]), (429, len(rejected)))
        self.assertEqual((limited["server"], limited["tries"]), (None, []))
        self.assertEqual(limited["ended"], "limit")
        self.assertTrue(limited["limit"])

    def test_client_aborted(self) -> None:
        """A request whose client disconnected has status 499 and ended with "client"."""
        balancer = self.start_balancer()
        client = balancer.client()
        client.send(GET)
        client.reset()
        (fields,) = self.log_objects(balancer)
        self.assertEqual(
            (fields["status"], fields["ended"], fields["bytes_sent"]), (499, "client", 0)
        )

    def test_client_aborted_combined(self) -> None:
        """In the combined format, too, the status is 499."""
        balancer = self.start_balancer("combined")
        client = balancer.client()
        client.send(GET)
        client.reset()
        self.assertIn('"GET / HTTP/1.1" 499 0 ', self.log_lines(balancer)[0])

    def test_truncated_response(self) -> None:
        """A truncated response is logged with the bytes that were sent, and the failure."""
        balancer = self.start_balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        server.send(b"d")
        server.reset()
        (fields,) = self.log_objects(balancer)
        self.assertEqual(
            (fields["status"], fields["bytes_sent"], fields["ended"]), (200, 4, "server")
        )
        self.assertIn("closed the connection", fields["tries"][0]["result"])

    def test_body_too_large(self) -> None:
        """A request whose body exceeds the limit is logged with 413."""
        balancer = self.start_balancer(max_body=10)
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"14\r\n" + 20 * b"x")
        head, _, body = client.received().partition(b"\r\n\r\n")
        self.assertIn(b"413", head)
        (fields,) = self.log_objects(balancer)
        self.assertEqual((fields["status"], fields["bytes_sent"]), (413, len(body)))

    def test_tunnel(self) -> None:
        """A tunnel is logged when it ends, with the bytes sent to the client."""
        balancer = self.start_balancer()
        client = balancer.client()
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        server = balancer.accept()
        server.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        server.send(b"hello")
        client.send(b"world!")
        balancer.advance(5)
        self.assertEqual(self.log_lines(balancer), [])
        client.reset()
        (fields,) = self.log_objects(balancer)
        self.assertEqual((fields["status"], fields["bytes_sent"]), (101, 5))
        self.assertEqual(fields["bytes_received"], 6)

    def test_chunked_body(self) -> None:
        """`bytes_received` counts the content of a chunked body, not its framing."""
        balancer = self.start_balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"3\r\nabc\r\n", b"0\r\nX-Sum: 3\r\n\r\n")
        balancer.accept().send(OK)
        (fields,) = self.log_objects(balancer)
        self.assertEqual(fields["bytes_received"], 3)


class WebAccessLogTests(AccessLogTestCase):
    """Requests that a twisted.web resource handles."""

    def test_json(self) -> None:
        """The JSON format has all fields of the request and its response."""
        balancer = self.start_balancer()
        root = Resource()
        root.putChild(b"app", balancer.service.resource)
        channel = Site(root, reactor=balancer.clock).buildProtocol(
            IPv4Address("TCP", "192.0.2.1", 40000)
        )
        client = Peer(channel)
        client.send(BROWSER.replace(b"/a?", b"/app/a?"))
        server = balancer.accept()
        balancer.clock.advance(0.25)
        server.send(OK)
        client.send(BROWSER.replace(b"/a?", b"/app/a?"))
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        server.reset()
        channel.connectionLost(Failure(ConnectionDone()))
        complete, truncated = self.log_objects(balancer)
        self.assertEqual((complete["target"], complete["status"]), ("/a?b=c", 200))
        self.assertEqual((complete["bytes_sent"], complete["ended"]), (5, "complete"))
        self.assertEqual((truncated["bytes_sent"], truncated["ended"]), (3, "server"))


class TcpAccessLogTests(AccessLogTestCase):
    """Connections of TCP frontends."""

    def reset_connection(self, style: str) -> MemoryBalancer:
        """A balancer after a TCP connection that the server reset."""
        balancer = self.start_balancer(style, mode="tcp", log_connections=True)
        client = balancer.client()
        server = balancer.accept()
        client.send(b"four")
        server.send(b"seven77")
        balancer.clock.advance(0.5)
        server.reset()
        return balancer

    def test_json(self) -> None:
        """The JSON format has all fields of the request and its response."""
        (fields,) = self.log_objects(self.reset_connection("json"))
        self.assertEqual(tuple(fields), (*KEYS, "close_reason"))
        present = {key: value for key, value in fields.items() if value is not None}
        for key in ("id", "duration", "connect", "first_byte", "reason", "tries"):
            self.assertTrue(present.pop(key), key)
        self.assertEqual(
            present,
            {
                "time": "2001-09-09T01:46:40.500Z",
                "frontend": "web",
                "route": "",
                "pool": "app",
                "client": "192.0.2.1",
                "server": "10.0.0.1:80",
                "close_reason": "server reset",
                "bytes_received": 4,
                "bytes_sent": 7,
                "ended": "server",
            },
        )

    def test_text(self) -> None:
        """The text format names client, server, reason, bytes and duration."""
        (line,) = self.log_lines(self.reset_connection("combined"))
        self.assertEqual(
            line,
            f"[{local_time(1_000_000_000)}] 192.0.2.1 -> 10.0.0.1:80: server reset; "
            "4 bytes from client, 7 bytes from server, 0.500 s",
        )

    def test_no_server(self) -> None:
        """A connection that got no server is logged with the reason."""
        balancer = self.start_balancer("combined", mode="tcp")
        balancer.client()
        balancer.connectors[0].refuse()
        self.assertIn("-> no server: the server could not be reached", self.log_lines(balancer)[0])


class AccessLogReloadTests(AccessLogTestCase):
    """Files and formats at reloads, start and stop."""

    def get(self, balancer: MemoryBalancer) -> None:
        """Send a request, and answer it."""
        client = balancer.client()
        client.send(GET)
        before = len(balancer.connectors)
        if balancer.connectors and before > self.accepted:
            self.accepted += 1
            self.server = balancer.accept()
        self.server.send(OK)

    accepted = 0
    server: Peer

    def apply(self, balancer: MemoryBalancer, **frontend: Any) -> None:
        """Apply settings with these options of the frontend."""
        balancer.service.apply(logging_settings(**frontend))

    def test_rotation_by_reload(self) -> None:
        """A reload opens the same path again, and keeps the observer."""
        balancer = self.start_balancer("combined")
        site = balancer.service.default_frontend.factory
        before = site.observer
        self.get(balancer)
        moved = self.path.with_suffix(".1")
        self.path.rename(moved)
        self.apply(balancer, access_log=str(self.path))
        self.assertIs(site.observer, before)
        self.get(balancer)
        balancer.advance(2)
        self.assertEqual(moved.read_text().count("\n"), 1)
        self.assertEqual(self.path.read_text().count("\n"), 1)

    def test_file_that_cannot_be_opened(self) -> None:
        """If a file cannot be opened, the settings are rejected, and the log stays."""
        balancer = self.start_balancer("combined")
        observer = balancer.service.default_frontend.factory.observer
        below = str(self.path / "below")
        error = self.assertRaises(ConfigError, self.apply, balancer, access_log=below)
        self.assertIn(f"--access-log {below}: not a directory", str(error))
        self.assertEqual(balancer.service.settings.frontends[0].access_log, str(self.path))
        self.assertIs(balancer.service.default_frontend.factory.observer, observer)
        self.assertEqual(list(balancer.service.access_logs.files), [str(self.path)])

    def test_rollback(self) -> None:
        """If the settings are rejected for another reason, new files are closed."""
        balancer = self.start_balancer("combined")
        other = str(temporary_log_path(self))
        opened: list[LogFile] = []
        real = LogFile.open

        def open_file(file: LogFile) -> None:
            """Record the file, and open it."""
            opened.append(file)
            real(file)

        self.patch(LogFile, "open", open_file)

        def reject(*addresses: Any) -> None:
            """Fail as an address in use does."""
            raise ConfigError("address in use")

        self.patch(balancer.service.listeners, "bind", reject)
        self.assertRaises(ConfigError, self.apply, balancer, access_log=other)
        self.assertEqual([(file.path, file.is_open) for file in opened], [(other, False)])
        self.get(balancer)
        self.assertEqual(len(self.log_lines(balancer)), 1)

    def test_request_in_progress_during_reload(self) -> None:
        """A request in progress is logged to the new file, in the new format."""
        balancer = self.start_balancer("combined")
        client = balancer.client()
        client.send(GET)
        other = temporary_log_path(self)
        self.apply(balancer, access_log=str(other), access_log_format="json")
        balancer.accept().send(OK)
        balancer.advance(2)
        self.assertEqual(self.path.read_text(), "")
        self.assertEqual(json.loads(other.read_text())["status"], 200)

    def test_request_in_progress_of_removed_frontend(self) -> None:
        """A request in progress is logged although its frontend was removed."""
        balancer = self.start_balancer("combined")
        client = balancer.client()
        client.send(GET)
        file = balancer.service.access_logs.files[str(self.path)]
        self.apply(balancer, name="other")
        self.assertFalse(file.is_open)
        self.assertIsNone(balancer.service.default_frontend.factory.observer)
        balancer.accept().send(OK)
        self.assertEqual(self.path.read_text().count("\n"), 1)
        self.assertFalse(file.is_open)
        client.reset()
        balancer.advance(2)

    def test_shared_file(self) -> None:
        """Frontends with the same path share one file, with an observer each."""
        defaults = logging_settings()
        frontends = tuple(
            FrontendSettings(name, (), access_log=str(self.path)) for name in ("one", "other")
        )
        balancer = MemoryBalancer.from_settings(evolve(defaults, frontends=frontends))
        self.addCleanup(balancer.stop)
        logs = balancer.service.access_logs
        self.assertEqual(list(logs.files), [str(self.path)])
        self.assertIsNot(logs.observer(frontends[0]), logs.observer(frontends[1]))

    def test_stop(self) -> None:
        """Stopping logs requests in progress and closes the files; starting opens them."""
        balancer = self.start_balancer("combined")
        self.get(balancer)
        client = balancer.client()
        client.send(GET)
        balancer.stop()
        self.assertEqual(self.path.read_text().count("\n"), 2)
        self.assertFalse(balancer.service.access_logs.files[str(self.path)].is_open)
        balancer.service.startService()
        self.assertTrue(balancer.service.access_logs.files[str(self.path)].is_open)

    def test_start_with_invalid_path(self) -> None:
        """The balancer does not start if the file cannot be opened."""
        error = self.assertRaises(
            ConfigError,
            MemoryBalancer.from_settings,
            logging_settings(access_log="/nowhere/at/all"),
        )
        self.assertIn("--access-log /nowhere/at/all: no such file or directory", str(error))

    def test_frontend_changes_mode(self) -> None:
        """After a change to TCP, a request in progress is logged as HTTP."""
        balancer = self.start_balancer("json")
        client = balancer.client()
        client.send(GET)
        self.apply(balancer, access_log=str(self.path), access_log_format="json", mode="tcp")
        relay = balancer.service.default_frontend.factory.buildProtocol(
            IPv4Address("TCP", "192.0.2.7", 1)
        )
        assert isinstance(relay, ClientRelay)
        balancer.accept(0).send(OK)
        client.reset()
        balancer.advance(2)
        (fields,) = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.assertEqual(fields["status"], 200)


def test_process(tmp_path: Path) -> None:
    """A real process writes every request within a second or two."""
    log = tmp_path / "access.log"
    with ScriptedServer(respond_with("one")) as server:
        options = ("-u", server.address, "--access-log", str(log), "--access-log-format", "json")
        with run_balancer(tmp_path, *options) as running:
            with running.connect() as client:
                client.sendall(BROWSER)
                read_head(client)
                wait_until(lambda: log.read_text().endswith("\n"))
                client.sendall(BROWSER)
                read_head(client)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["status"] for entry in entries] == [200, 200]
    assert entries[0]["server"] == server.address
    assert 0 < entries[0]["duration"] < 10
    ended = datetime.fromisoformat(entries[0]["time"].replace("Z", "+00:00"))
    assert abs(ended.timestamp() - time.time()) < 60


def test_process_stdout(tmp_path: Path) -> None:
    """A real process writes to stdout for "-"."""
    with ScriptedServer(respond_with("one")) as server:
        with run_balancer(tmp_path, "-u", server.address, "--access-log", "-") as running:
            with running.connect() as client:
                client.sendall(BROWSER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                read_all(client)
            line = wait_until(lambda: re.search('"GET /a.*', running.output.read_text()))
    assert line.group().startswith('"GET /a?b=c HTTP/1.1" 200 3 "https://example.org/"')
