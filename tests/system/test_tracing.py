"""Traces of a real process, exported to collectors on real sockets."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from balancebeam.protocols.trace_context import parse_traceparent
from tests.helpers.collector import OK, UNAVAILABLE, Collector, attributes
from tests.helpers.configured_balancer import ConfiguredBalancer, run_configured_balancer
from tests.helpers.http_client import get
from tests.helpers.processes import ScriptedServer, free_port, read_head, respond_with, wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def configuration(port: int, admin: int, servers: list[str], tracing: str) -> str:
    """A configuration file with one frontend, one pool and this table [tracing]."""
    quoted = ", ".join(f'"{server}"' for server in servers)
    return (
        f'[[frontend]]\nbind = ["127.0.0.1:{port}"]\n'
        f'[[pool]]\nupstreams = [{quoted}]\n[admin]\nbind = "127.0.0.1:{admin}"\n{tracing}'
    )


def tracing(endpoint: str, timeout: float = 30) -> str:
    """A table [tracing] in which all requests are sampled."""
    return f'[tracing]\nendpoint = "{endpoint}"\nsample_ratio = 1\ntimeout = {timeout}\n'


class Running:
    """A balancer with one good server, and its configuration."""

    def __init__(self, folder: Path, server: str, table: str) -> None:
        self.folder, self.server, self.port, self.admin = folder, server, free_port(), free_port()
        self.text = configuration(self.port, self.admin, [server], table)
        self.process: ConfiguredBalancer

    def lost(self) -> int:
        """The number of lost spans."""
        text = get(self.admin, _METRICS).decode()
        prefix = 'balancebeam_trace_spans_total{result="lost"} '
        return int(text.partition(prefix)[2].split("\n", 1)[0])


def _has_lost(setup: Running, count: int) -> bool:
    """Whether this many spans were lost."""
    return setup.lost() >= count


@contextlib.contextmanager
def running(folder: Path, endpoint: str, timeout: float = 30) -> Iterator[Running]:
    """A running balancer that traces all requests."""
    with ScriptedServer(respond_with("one")) as server:
        setup = Running(folder, server.address, tracing(endpoint, timeout))
        with run_configured_balancer(folder, setup.text, setup.port) as process:
            setup.process = process
            yield setup


def test_spans_of_a_retried_request(tmp_path: Path) -> None:
    """Client, proxy and server see one trace: each attempt is the parent of its request."""
    heads: list[bytes] = []

    def serve(connection: Any, number: int) -> None:
        head = read_head(connection)[0]
        heads.append(head)
        if len(heads) > 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    port, admin = free_port(), free_port()
    with Collector() as collector, ScriptedServer(serve) as one, ScriptedServer(serve) as two:
        text = configuration(port, admin, [one.address, two.address], tracing(collector.endpoint))
        with run_configured_balancer(tmp_path, text, admin) as process:
            request = (
                f"GET /a?secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                f"traceparent: 00-{TRACE}-{SPAN}-01\r\n\r\n"
            )
            assert get(port, request.encode()).startswith(b"HTTP/1.1 200")
            wait_until(lambda: len(collector.spans) == 3)
            process.send(signal.SIGTERM)
            assert process.wait() == 0
    served, *attempts = collector.spans
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert served.parent_span_id.hex() == SPAN
    assert [span.parent_span_id for span in attempts] == [served.span_id] * 2
    parents = [
        parse_traceparent(line.partition(b": ")[2])
        for head in heads
        for line in head.split(b"\r\n")
        if line.startswith(b"traceparent")
    ]
    assert [f"{parent.parent_id:016x}" for parent in parents if parent] == [
        span.span_id.hex() for span in attempts
    ]
    assert [attributes(span).get("http.response.status_code") for span in attempts] == [None, 200]
    assert "secret" not in str(collector.spans)
    assert served.start_time_unix_nano <= attempts[0].start_time_unix_nano
    assert attempts[0].end_time_unix_nano <= attempts[1].start_time_unix_nano
    assert attempts[1].end_time_unix_nano <= served.end_time_unix_nano


def test_collector_returns(tmp_path: Path) -> None:
    """An absent collector costs lost spans and one line; later it receives spans again."""
    port = free_port()
    with running(tmp_path, f"http://127.0.0.1:{port}/v1/traces", 0.5) as setup:
        for count in (2, 4):
            assert get(setup.port).endswith(b"one")
            wait_until(partial(_has_lost, setup, count))
        with Collector(UNAVAILABLE, port) as collector:
            assert get(setup.port).endswith(b"one")
            wait_until(lambda: collector.heads)
            collector.respond = lambda client: client.sendall(OK)
            assert get(setup.port).endswith(b"one")
            wait_until(lambda: setup.process.has_logged("reachable again"))
            collector.respond = lambda client: client.sendall(UNAVAILABLE)
        log = setup.process.log.read_text()
    assert log.count("unreachable") == 1, log
    assert "opentelemetry" not in log


def test_hanging_collector(tmp_path: Path) -> None:
    """A collector that never answers delays neither requests, nor a reload, nor the exit."""
    release = threading.Event()
    with Collector() as collector:
        collector.respond = lambda client: (release.wait(60), None)[1]
        with running(tmp_path, collector.endpoint) as setup:
            assert get(setup.port).endswith(b"one")
            wait_until(lambda: collector.heads)
            begin = time.monotonic()
            for _ in range(20):
                assert get(setup.port).endswith(b"one")
            assert time.monotonic() - begin < 5
            threads = Path(f"/proc/{setup.process.process.pid}/task")
            names = lambda: [(task / "comm").read_text() for task in threads.iterdir()]  # noqa: E731
            with_thread = len(names())
            # Without the table, the thread ends although its export hangs.
            untraced = setup.text.partition("[tracing]")[0]
            setup.process.config.write_text(untraced)
            setup.process.send(signal.SIGHUP)
            wait_until(lambda: setup.process.has_logged("reloaded: tracing changed"))
            wait_until(lambda: len(names()) < with_thread)
            assert get(setup.port).endswith(b"one")
            assert setup.lost() > 20
            setup.process.config.write_text(setup.text)
            setup.process.send(signal.SIGHUP)
            wait_until(lambda: setup.process.has_logged("reloaded: tracing changed", 2))
            seen = len(collector.heads)
            assert get(setup.port).endswith(b"one")
            wait_until(lambda: len(collector.heads) > seen)
            begin = time.monotonic()
            setup.process.send(signal.SIGTERM)
            assert setup.process.wait() == 0
            assert time.monotonic() - begin < 10
            release.set()
