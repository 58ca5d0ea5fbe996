"""A line for everything that has ended."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
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
from balancebeam.observability.access_log import AccessLog
from balancebeam.observability.access_log_formats import build_format, local_time, utc_time
from balancebeam.observability.log_file import LogFile
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer
from tests.helpers.processes import (
    ScriptedServer,
    read_all,
    read_head,
    respond_with,
    run_balancer,
    wait_until,
)
from tests.unit.observability.test_log_file import temporary_log_path

BROWSER = (
    b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
    b"Referer: https://example.org/\r\n\r\n"
)

# A whole line of the combined format, and nothing else.
_OCTET = r"[!#-\[\]-~]|\\x[0-9A-F]{2}"
_QUOTED = f'"(?: |{_OCTET})*"'
COMBINED = re.compile(
    rf"(?:{_OCTET})+ - - \[[0-9A-Za-z/:]+ [+-][0-9]{{4}}\] "
    rf"{_QUOTED} [0-9]+ [0-9]+ {_QUOTED} {_QUOTED}\n"
)


def settings(servers: int = 1, **frontend: Any) -> Settings:
    listed = [ServerSettings(TcpAddress(f"10.0.0.{number + 1}", 80)) for number in range(servers)]
    made = single_pool_settings(tuple(listed), bind=())
    return evolve(made, frontends=(evolve(made.frontends[0], **frontend),))


class AccessLogTestCase(SynchronousTestCase):
    """What the tests of whole balancers share."""

    def setUp(self) -> None:
        self.path = temporary_log_path(self)

    def make(self, style: str = "json", **more: Any) -> MemoryBalancer:
        balancer = MemoryBalancer.from_settings(
            settings(access_log=str(self.path), access_log_format=style, **more)
        )
        self.addCleanup(balancer.stop)
        balancer.clock.advance(1_000_000_000 - balancer.clock.seconds())
        return balancer

    def lines(self, balancer: MemoryBalancer) -> list[str]:
        balancer.advance(2)
        return self.path.read_text().splitlines()

    def objects(self, balancer: MemoryBalancer) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(balancer)]


class HttpAccessLogTests(AccessLogTestCase):
    """The HTTP door."""

    def test_combined(self) -> None:
        balancer = self.make("combined")
        client = balancer.client()
        client.send(BROWSER)
        server = balancer.accept()
        server.send(OK)
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        first, second = self.lines(balancer)
        when = local_time(1_000_000_000)
        self.assertEqual(
            first,
            f'192.0.2.1 - - [{when}] "GET /a?b=c HTTP/1.1" 200 5 '
            '"https://example.org/" "Mozilla/5.0 (X11)"',
        )
        self.assertEqual(second, f'192.0.2.1 - - [{when}] "HEAD / HTTP/1.1" 204 0 "-" "-"')

    def test_what_cannot_be_read(self) -> None:
        for style in ("combined", "json"):
            balancer = self.make(style, max_body=10)
            self.path.write_text("")
            refused = (
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
            answers = []
            for sent, _, _ in refused:
                client = balancer.client()
                client.send(sent)
                balancer.advance(12)
                answers.append(client.received().partition(b"\r\n\r\n"))
            lines = self.path.read_text().splitlines()
            self.assertEqual(len(lines), len(refused))
            for line, (_, status, shown), (head, _, body) in zip(lines, refused, answers):
                self.assertIn(b" %d " % status, head[:14])
                if style == "combined":
                    self.assertRegex(line + "\n", COMBINED)
                    self.assertIn(f'] "{shown}" {status} {len(body)} "-" "-"', line)
                else:
                    said = json.loads(line)
                    self.assertEqual((said["status"], said["bytes_sent"]), (status, len(body)))
                    self.assertEqual((said["client"], said["frontend"]), ("192.0.2.1", "web"))
                    self.assertTrue(said["request"] and said["failure"])

    def test_a_body_that_cannot_be_read_is_told_of_once(self) -> None:
        balancer = self.make()
        client = balancer.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
        (said,) = self.objects(balancer)
        self.assertEqual((said["target"], said["status"]), ("/a", 400))

    def test_json(self) -> None:
        balancer = self.make(forwarding=ForwardingSettings(request_id="make"))
        client = balancer.client()
        client.send(BROWSER)
        server = balancer.accept()
        sent = server.received()
        balancer.clock.advance(0.25)
        server.send(OK)
        (said,) = self.objects(balancer)
        self.assertIn(f"X-Request-Id: {said.pop('id')}\r\n".encode(), sent)
        self.assertEqual(
            said,
            {
                "time": "2001-09-09T01:46:40.250Z",
                "frontend": "web",
                "pool": "app",
                "client": "192.0.2.1",
                "method": "GET",
                "host": "example.org",
                "target": "/a?b=c",
                "protocol": "HTTP/1.1",
                "status": 200,
                "bytes_sent": 5,
                "duration": 0.25,
                "server": "10.0.0.1:80",
                "attempted_servers": [],
                "referer": "https://example.org/",
                "user_agent": "Mozilla/5.0 (X11)",
            },
        )

    def test_own_answers(self) -> None:
        balancer = self.make(limits=(LimitSettings(1),), servers=2)
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        balancer.connectors[0].refuse()
        balancer.connectors[1].refuse()
        body = client.received().partition(b"\r\n\r\n")[2]
        balancer.finish_closing()
        client = balancer.client()
        client.send(GET)
        refused = client.received().partition(b"\r\n\r\n")[2]
        failed, limited = self.objects(balancer)
        self.assertEqual((failed["status"], failed["bytes_sent"]), (502, len(body)))
        self.assertEqual(failed["attempted_servers"], ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertIn("could not be reached", failed["failure"])
        self.assertEqual((failed["protocol"], failed["host"]), ("HTTP/1.0", None))
        self.assertEqual((limited["status"], limited["bytes_sent"]), (429, len(refused)))
        self.assertEqual((limited["server"], limited["attempted_servers"]), (None, []))

    def test_abandoned(self) -> None:
        balancer = self.make()
        client = balancer.client()
        client.send(GET)
        client.reset()
        (said,) = self.objects(balancer)
        self.assertEqual(
            (said["status"], said["client_aborted"], said["bytes_sent"]), (499, True, 0)
        )

    def test_abandoned_combined(self) -> None:
        balancer = self.make("combined")
        client = balancer.client()
        client.send(GET)
        client.reset()
        self.assertIn('"GET / HTTP/1.1" 499 0 ', self.lines(balancer)[0])

    def test_cut(self) -> None:
        balancer = self.make()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        server.send(b"d")
        server.reset()
        (said,) = self.objects(balancer)
        self.assertEqual((said["status"], said["bytes_sent"], said["truncated"]), (200, 4, True))
        self.assertIn("closed the connection", said["failure"])
        self.assertNotIn("client_aborted", said)

    def test_refused_while_the_body_comes(self) -> None:
        balancer = self.make(max_body=10)
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"14\r\n" + 20 * b"x")
        self.assertIn(b"413", client.received())
        (said,) = self.objects(balancer)
        self.assertEqual(said["status"], 413)

    def test_tunnel(self) -> None:
        balancer = self.make()
        client = balancer.client()
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        server = balancer.accept()
        server.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        server.send(b"hello")
        balancer.advance(5)
        self.assertEqual(self.lines(balancer), [])
        client.reset()
        (said,) = self.objects(balancer)
        self.assertEqual((said["status"], said["bytes_sent"]), (101, 5))
        self.assertGreater(said["duration"], 5)


class WebAccessLogTests(AccessLogTestCase):
    """The web door."""

    def test_json(self) -> None:
        balancer = self.make()
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
        whole, cut = self.objects(balancer)
        self.assertEqual((whole["target"], whole["status"]), ("/a?b=c", 200))
        self.assertEqual((whole["bytes_sent"], whole["duration"]), (5, 0.25))
        self.assertEqual((cut["bytes_sent"], cut["truncated"]), (3, True))


class TcpAccessLogTests(AccessLogTestCase):
    """The TCP door."""

    def tcp(self, style: str) -> MemoryBalancer:
        balancer = self.make(style, mode="tcp", log_connections=True)
        client = balancer.client()
        server = balancer.accept()
        client.send(b"four")
        server.send(b"seven77")
        balancer.clock.advance(0.5)
        server.reset()
        return balancer

    def test_json(self) -> None:
        (said,) = self.objects(self.tcp("json"))
        self.assertEqual(
            said,
            {
                "time": "2001-09-09T01:46:40.500Z",
                "frontend": "web",
                "client": "192.0.2.1",
                "server": "10.0.0.1:80",
                "close_reason": "server reset",
                "bytes_received": 4,
                "bytes_sent": 7,
                "duration": 0.5,
            },
        )

    def test_words(self) -> None:
        (line,) = self.lines(self.tcp("combined"))
        self.assertEqual(
            line,
            f"[{local_time(1_000_000_000)}] 192.0.2.1 -> 10.0.0.1:80: server reset; "
            "4 bytes from client, 7 bytes from server, 0.500 s",
        )

    def test_no_server(self) -> None:
        balancer = self.make("combined", mode="tcp")
        balancer.client()
        balancer.connectors[0].refuse()
        self.assertIn("-> no server: the server could not be reached", self.lines(balancer)[0])


def request(**changes: Any) -> SimpleNamespace:
    """What a door hands over, with whatever in it."""
    method, target, fields = (changes.pop(name, b"") for name in ("method", "target", "fields"))
    wire = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, fields)
    head = RequestHead(method, target, 1, changes.pop("host", None), wire, 0, True, NO_RARE_FIELDS)
    server = SimpleNamespace(name="10.0.0.1:80")
    said = {
        "dispatcher": SimpleNamespace(pool_name="app"),
        "client": "192.0.2.1",
        "status": 200,
        "body_bytes_sent": 1,
        "started_at": 1.0,
        "attempted_servers": (server,),
        "last_server": server,
        "failure": None,
        "client_aborted": False,
        "truncated": False,
        **changes,
    }
    return SimpleNamespace(head=head, upstream_head=wire, **said)


HOSTILE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from((b'" 200 0 "-" "-"', b"\r\n", b"\n192.0.2.9 - -", b"\\", b"\xff\x00\x1b[2J")),
)


class LogInjectionTests(SynchronousTestCase):
    """Nobody forges a line, or a field, or breaks anything."""

    @given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.text(max_size=20))
    def test_nothing_is_forged(
        self, method: bytes, target: bytes, referer: bytes, agent: bytes, client: str
    ) -> None:
        fields = b"\r\nReferer: %b\r\nUser-agent:%b\r\nX-Request-Id: %b" % (referer, agent, method)
        exchange = request(method=method, target=target, fields=fields, host=referer, client=client)
        line = build_format("http", "combined", "web", time.time).finished(exchange)
        self.assertIsNotNone(COMBINED.fullmatch(line), line)
        line = build_format("http", "json", "web", time.time).finished(exchange)
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.isascii())
        said = json.loads(line)
        self.assertEqual(said["client"], client)
        self.assertEqual(said["status"], 200)

    @given(st.text(), st.text(), st.text())
    def test_connections(self, client: str, server: str, why: str) -> None:
        exchange = SimpleNamespace(
            client=client,
            server_name=server,
            close_reason=why,
            bytes_from_client=1,
            bytes_from_server=2,
            started_at=3.0,
        )
        line = build_format("tcp", "combined", "web", time.time).finished(exchange)
        self.assertTrue(line[:-1].isascii() and line[:-1].isprintable(), line)
        self.assertEqual(
            json.loads(build_format("tcp", "json", "db", time.time).finished(exchange))[
                "close_reason"
            ],
            why,
        )

    def test_escaped_as_nginx_does(self) -> None:
        exchange = request(
            method=b"GET", target=b"/\\", fields=b'User-Agent: a"b\\c\td\xc3\xa9\x7f\r\n'
        )
        line = build_format("http", "combined", "web", time.time).finished(exchange)
        self.assertIn('"GET /\\x5C HTTP/1.1"', line)
        self.assertTrue(line.endswith('"-" "a\\x22b\\x5Cc\\x09d\\xC3\\xA9\\x7F"\n'), line)

    def test_what_is_no_exchange(self) -> None:
        file = LogFile(str(temporary_log_path(self)))
        AccessLog(file, build_format("http", "json", "web", time.time)).exchange_finished(object())
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertFalse(os.path.exists(file.path))


class TimestampTests(SynchronousTestCase):
    """How times are written."""

    def zone(self, name: str) -> None:
        before = os.environ.get("TZ")

        def restore() -> None:
            os.environ.pop("TZ", None)
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()
            local_time.cache_clear()

        self.addCleanup(restore)
        os.environ["TZ"] = name
        time.tzset()
        local_time.cache_clear()

    def test_local(self) -> None:
        for zone, expected in (
            ("UTC", "09/Sep/2001:01:46:40 +0000"),
            ("XXX3:30", "08/Sep/2001:22:16:40 -0330"),
            ("XXX-5:45", "09/Sep/2001:07:31:40 +0545"),
        ):
            self.zone(zone)
            self.assertEqual(local_time(1_000_000_000), expected)

    def test_utc(self) -> None:
        self.assertEqual(utc_time(1_000_000_000.9999), "2001-09-09T01:46:40.999Z")
        self.assertEqual(utc_time(0), "1970-01-01T00:00:00.000Z")


class AccessLogReloadTests(AccessLogTestCase):
    """The files, when the settings change and when the balancer stops."""

    def get(self, balancer: MemoryBalancer) -> None:
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
        balancer.service.apply(settings(**frontend))

    def test_observer_stays(self) -> None:
        balancer = self.make("combined")
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

    def test_refused(self) -> None:
        balancer = self.make("combined")
        observer = balancer.service.default_frontend.factory.observer
        below = str(self.path / "below")
        error = self.assertRaises(ConfigError, self.apply, balancer, access_log=below)
        self.assertIn(f"--access-log {below}: not a directory", str(error))
        self.assertEqual(balancer.service.settings.frontends[0].access_log, str(self.path))
        self.assertIs(balancer.service.default_frontend.factory.observer, observer)
        self.assertEqual(list(balancer.service.access_logs.files), [str(self.path)])

    def test_refused_for_another_reason(self) -> None:
        balancer = self.make("combined")
        other = str(temporary_log_path(self))
        opened: list[LogFile] = []
        real = LogFile.open

        def open_file(file: LogFile) -> None:
            opened.append(file)
            real(file)

        self.patch(LogFile, "open", open_file)

        def refuse(*addresses: Any) -> None:
            raise ConfigError("taken")

        self.patch(balancer.service.listeners, "bind", refuse)
        self.assertRaises(ConfigError, self.apply, balancer, access_log=other)
        self.assertEqual([(file.path, file.is_open) for file in opened], [(other, False)])
        self.get(balancer)
        self.assertEqual(len(self.lines(balancer)), 1)

    def test_in_progress_goes_to_the_new_file(self) -> None:
        balancer = self.make("combined")
        client = balancer.client()
        client.send(GET)
        other = temporary_log_path(self)
        self.apply(balancer, access_log=str(other), access_log_format="json")
        balancer.accept().send(OK)
        balancer.advance(2)
        self.assertEqual(self.path.read_text(), "")
        self.assertEqual(json.loads(other.read_text())["status"], 200)

    def test_in_progress_when_the_frontend_leaves(self) -> None:
        balancer = self.make("combined")
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

    def test_one_file_for_several(self) -> None:
        made = settings()
        frontends = tuple(
            FrontendSettings(name, (), access_log=str(self.path)) for name in ("one", "other")
        )
        balancer = MemoryBalancer.from_settings(evolve(made, frontends=frontends))
        self.addCleanup(balancer.stop)
        logs = balancer.service.access_logs
        self.assertEqual(list(logs.files), [str(self.path)])
        self.assertIsNot(logs.observer(frontends[0]), logs.observer(frontends[1]))

    def test_stop(self) -> None:
        balancer = self.make("combined")
        self.get(balancer)
        client = balancer.client()
        client.send(GET)
        balancer.stop()
        self.assertEqual(self.path.read_text().count("\n"), 2)
        self.assertFalse(balancer.service.access_logs.files[str(self.path)].is_open)
        balancer.service.startService()
        self.assertTrue(balancer.service.access_logs.files[str(self.path)].is_open)

    def test_start_refused(self) -> None:
        error = self.assertRaises(
            ConfigError, MemoryBalancer.from_settings, settings(access_log="/nowhere/at/all")
        )
        self.assertIn("--access-log /nowhere/at/all: no such file or directory", str(error))

    def test_tcp_frontend_of_the_same_name(self) -> None:
        balancer = self.make("json")
        client = balancer.client()
        client.send(GET)
        self.apply(balancer, access_log=str(self.path), access_log_format="json", mode="tcp")
        link = balancer.service.default_frontend.factory.buildProtocol(
            IPv4Address("TCP", "192.0.2.7", 1)
        )
        assert isinstance(link, ClientRelay)
        balancer.accept(0).send(OK)
        client.reset()
        balancer.advance(2)
        (said,) = [json.loads(line) for line in self.path.read_text().splitlines()]
        self.assertEqual(said["status"], 200)


def test_through_the_program(tmp_path: Path) -> None:
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
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["status"] for one in said] == [200, 200]
    assert said[0]["server"] == server.address
    assert 0 < said[0]["duration"] < 10
    ended = datetime.fromisoformat(said[0]["time"].replace("Z", "+00:00"))
    assert abs(ended.timestamp() - time.time()) < 60


def test_stdout_of_the_program(tmp_path: Path) -> None:
    with ScriptedServer(respond_with("one")) as server:
        with run_balancer(tmp_path, "-u", server.address, "--access-log", "-") as running:
            with running.connect() as client:
                client.sendall(BROWSER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                read_all(client)
            line = wait_until(lambda: re.search('"GET /a.*', running.output.read_text()))
    assert line.group().startswith('"GET /a?b=c HTTP/1.1" 200 3 "https://example.org/"')
