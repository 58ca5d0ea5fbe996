"""Access log formats: escaping, and times."""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.downstream.tcp.session import TcpSession
from balancebeam.observability.access_log import AccessLog
from balancebeam.observability.access_log_formats import build_format
from balancebeam.observability.access_log_json import KEYS
from balancebeam.observability.access_log_records import HttpRecord, TcpRecord
from balancebeam.observability.caches import remember_text
from balancebeam.observability.log_file import LogFile
from balancebeam.observability.timestamps import local_time, utc_time
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from balancebeam.proxy.http_exchange import HttpExchange
from tests.helpers.access_log import COMBINED
from tests.helpers.files import temporary_log_path


def http_record(**changes: Any) -> Any:
    """An HTTP record with these parts of the request head, and other attributes."""
    method, target, headers = (changes.pop(name, b"") for name in ("method", "target", "headers"))
    wire = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, headers)
    head = RequestHead(method, target, 1, changes.pop("host", None), wire, 0, True, NO_RARE_FIELDS)
    server = SimpleNamespace(name="10.0.0.1:80")
    attributes = {
        "http_version": "1.1",
        "dispatcher": SimpleNamespace(pool_name="app"),
        "client": "192.0.2.1",
        "status": 200,
        "body_bytes_sent": 1,
        "body_bytes_received": 0,
        "route": None,
        "tls": None,
        "limit_name": "",
        "received_at": 1.0,
        "queue_seconds": 0.0,
        "connect_seconds": None,
        "attempt_at": 1.0,
        "first_byte_at": 1.5,
        "finished_at": 1.5,
        "tries": (),
        "last_try_failed": False,
        "selection_reason": "",
        "outcome": "",
        "uneventful": True,
        "downstream_response_started": True,
        "server": None,
        "last_server": server,
        "failure": None,
        "client_aborted": False,
        "truncated": False,
        **changes,
    }
    return SimpleNamespace(head=head, upstream_head=wire, **attributes)


HOSTILE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from((b'" 200 0 "-" "-"', b"\r\n", b"\n192.0.2.9 - -", b"\\", b"\xff\x00\x1b[2J")),
)


def as_http_record(exchange: HttpExchange) -> HttpRecord:
    """Checked by mypy: exchanges of HTTP frontends are HTTP records."""
    return exchange


def as_tcp_record(session: TcpSession) -> TcpRecord:
    """Checked by mypy: sessions of TCP frontends are TCP records."""
    return session


class LogInjectionTests(SynchronousTestCase):
    """Escaping: no client can forge a field or a line."""

    @given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.text(max_size=20))
    def test_hostile_requests(
        self, method: bytes, target: bytes, referer: bytes, agent: bytes, client: str
    ) -> None:
        """Any request makes one well-formed line in both formats."""
        headers = b"\r\nReferer: %b\r\nUser-agent:%b\r\nX-Request-Id: %b" % (referer, agent, method)
        record = http_record(
            method=method, target=target, headers=headers, host=referer, client=client
        )
        line = build_format("http", "combined", "web", time.time).finished(record)
        self.assertIsNotNone(COMBINED.fullmatch(line), line)
        line = build_format("http", "json", "web", time.time).finished(record)
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.isascii())
        fields = json.loads(line)
        self.assertEqual(tuple(fields), KEYS)
        self.assertEqual(fields["client"], client or None)
        self.assertEqual(fields["status"], 200)
        # The line of a failed request is built in another way.
        record.outcome, record.uneventful = "server", False
        failed = json.loads(build_format("http", "json", "web", time.time).finished(record))
        for key in ("time", "ended"):
            del fields[key], failed[key]
        self.assertEqual(failed, fields)

    @given(st.text(), st.text(), st.text())
    def test_hostile_connections(self, client: str, server: str, reason: str) -> None:
        """Any TCP connection makes one printable line, and JSON with the same reason."""
        record: Any = SimpleNamespace(
            client=client,
            server_name=server,
            close_reason=reason,
            bytes_from_client=1,
            bytes_from_server=2,
            started_at=3.0,
            received_at=1.0,
            attempt_at=1.0,
            first_byte_at=0.0,
            finished_at=1.5,
            queue_seconds=0.0,
            connect_seconds=None,
            tries=(),
            route=None,
            tls=None,
            limit_name="",
            last_try_failed=False,
            selection_reason="",
            outcome="",
            status=0,
            client_aborted=False,
            downstream_response_started=True,
            failure=None,
            server=None,
            last_server=None,
            dispatcher=SimpleNamespace(pool_name="db"),
        )
        line = build_format("tcp", "combined", "web", time.time).finished(record)
        self.assertTrue(line[:-1].isascii() and line[:-1].isprintable(), line)
        self.assertEqual(
            json.loads(build_format("tcp", "json", "db", time.time).finished(record))[
                "close_reason"
            ],
            reason,
        )

    def test_escaping_of_combined(self) -> None:
        """The combined format escapes as nginx does."""
        record = http_record(
            method=b"GET", target=b"/\\", headers=b'User-Agent: a"b\\c\td\xc3\xa9\x7f\r\n'
        )
        line = build_format("http", "combined", "web", time.time).finished(record)
        self.assertIn('"GET /\\x5C HTTP/1.1"', line)
        self.assertTrue(line.endswith('"-" "a\\x22b\\x5Cc\\x09d\\xC3\\xA9\\x7F"\n'), line)

    @given(HOSTILE, HOSTILE, HOSTILE)
    def test_repeated_fields(self, target: bytes, referer: bytes, agent: bytes) -> None:
        """Lines of repeated fields equal the lines of the same fields before."""
        headers = b"\r\nReferer: %b\r\nUser-Agent: %b" % (referer, agent)
        record, repeated = (http_record(target=target, headers=headers) for _ in range(2))
        repeated.head.repeated_block = headers
        for style in ("combined", "json"):
            finished = build_format("http", style, "web", lambda: 1e9).finished
            expected = finished(record)
            self.assertEqual([finished(repeated) for _ in range(3)], [expected] * 3)

    def test_caches_are_bounded(self) -> None:
        """Caches are emptied when they are full, and do not remember long texts."""
        cache: dict[int, str] = {}
        for number in range(10):
            self.assertEqual(remember_text(cache, number, f"text {number}", 4), f"text {number}")
            self.assertLessEqual(len(cache), 4)
        self.assertEqual(cache, {8: "text 8", 9: "text 9"})
        text = "a" * 1000
        self.assertEqual(remember_text(cache, 10, text, 4), text)
        self.assertNotIn(10, cache)

    def test_formatting_error(self) -> None:
        """An exception of a formatter is logged, and the line is omitted."""
        file = LogFile(str(temporary_log_path(self)))
        AccessLog(file, build_format("http", "json", "web", time.time)).exchange_finished(object())
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertFalse(os.path.exists(file.path))


class TimestampTests(SynchronousTestCase):
    """Local times and UTC."""

    def set_time_zone(self, name: str) -> None:
        """Change the time zone for this test."""
        before = os.environ.get("TZ")

        def restore() -> None:
            """Restore the time zone."""
            os.environ.pop("TZ", None)
            if before is not None:
                os.environ["TZ"] = before
            time.tzset()
            local_time.cache_clear()

        self.addCleanup(restore)
        os.environ["TZ"] = name
        time.tzset()
        local_time.cache_clear()

    def test_local_time(self) -> None:
        """Local times have the offset of their zone."""
        for zone, expected in (
            ("UTC", "09/Sep/2001:01:46:40 +0000"),
            ("XXX3:30", "08/Sep/2001:22:16:40 -0330"),
            ("XXX-5:45", "09/Sep/2001:07:31:40 +0545"),
        ):
            self.set_time_zone(zone)
            self.assertEqual(local_time(1_000_000_000), expected)

    def test_utc_time(self) -> None:
        """UTC times have milliseconds, rounded down."""
        self.assertEqual(utc_time(1_000_000_000.9999), "2001-09-09T01:46:40.999Z")
        self.assertEqual(utc_time(0), "1970-01-01T00:00:00.000Z")
