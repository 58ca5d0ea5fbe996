"""Log lines about listeners, at start and after a reload."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections.abc import Sequence
from typing import Any, cast

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import (
    AdminSettings,
    CertificateSource,
    FrontendSettings,
    FrontendTlsSettings,
    PoolSettings,
    RouteSettings,
    ServerSettings,
    Settings,
)
from balancebeam.server.balancer import BalancerService
from balancebeam.server.startup_log import curl_command

SERVERS = tuple(ServerSettings(TcpAddress(f"10.0.0.{number}", 80)) for number in (1, 2, 3))
APP = PoolSettings("app", SERVERS)
API = PoolSettings("api", SERVERS[:1], algorithm="least-connections")
TARGET = "pool app (3 servers, round-robin)"


class StartupLogTests(SynchronousTestCase):
    """The lines of a balancer with real listeners."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def address(self, host: str = "127.0.0.1") -> TcpAddress:
        """A TCP address that is free now."""
        with socket.create_server((host, 0)) as probe:
            return TcpAddress(host, probe.getsockname()[1])

    def settings(self, *binds: ListenAddress, **fields: Any) -> Settings:
        """One frontend at `binds`, and two pools."""
        frontend = evolve(FrontendSettings("web", bind=binds, pool="app"), **fields)
        return Settings((frontend,), (APP, API))

    def start(self, settings: Settings) -> list[str]:
        """Start a balancer; returns the lines about listeners."""
        self.balancer = BalancerService(settings, reactor, random.Random(1))
        with capturedLogs() as events:
            self.balancer.privilegedStartService()
            self.balancer.startService()
        self.addCleanup(self.stop, self.balancer)
        return self.lines(events)

    def stop(self, balancer: BalancerService) -> None:
        """Stop a balancer; the ports of endpoints and of demo servers need the reactor for it."""
        closed: list[object] = []
        balancer.stopService().addBoth(closed.append)
        loop = cast(ReactorBase, reactor)
        # Once more after the end, for a client connection that was aborted.
        for _ in range(100):
            ended = bool(closed)
            loop.iterate(0.01)
            if ended:
                break

    def reload(self, settings: Settings) -> list[str]:
        """Apply settings; returns the lines about listeners."""
        with capturedLogs() as events:
            self.balancer.apply(settings)
        return self.lines(events)

    def lines(self, events: Sequence[dict[str, Any]]) -> list[str]:
        """The lines of this module in a captured log."""
        return [
            formatEvent(event)
            for event in events
            if event.get("log_namespace") == "balancebeam.server.startup_log"
        ]

    def test_tcp_address(self) -> None:
        """The scheme of a TCP address is the mode of its frontend."""
        address = self.address("0.0.0.0")
        self.assertEqual(
            self.start(self.settings(address)), [f"listening on http://{address} -> {TARGET}"]
        )
        address = self.address()
        self.assertEqual(
            self.start(self.settings(address, mode="tcp")),
            [f"listening on tcp://{address} -> {TARGET}"],
        )

    def test_tls(self) -> None:
        """With TLS the scheme is https, or tls in TCP mode."""
        tls = FrontendTlsSettings(self_signed=True)
        address, unix = self.address(), UnixAddress(f"{self.folder}/s")
        self.assertEqual(
            self.start(self.settings(address, unix, tls=tls)),
            [
                f"listening on https://{address} -> {TARGET}",
                f"listening on {unix} (https) -> {TARGET}",
            ],
        )
        address = self.address()
        self.assertEqual(
            self.start(self.settings(address, tls=tls, mode="tcp")),
            [f"listening on tls://{address} -> {TARGET}"],
        )

    def test_redirect(self) -> None:
        """A frontend that redirects to https needs no pool."""
        address = self.address()
        settings = self.settings(address, pool="missing", redirect_https=True)
        self.assertEqual(
            self.start(settings), [f"listening on http://{address} -> redirect to https"]
        )

    def test_redirect_to_port_chosen_by_the_kernel(self) -> None:
        """A redirect leads to the port that the kernel has chosen for the TLS frontend."""
        settings = self.settings(
            TcpAddress("127.0.0.1", 0), tls=FrontendTlsSettings(self_signed=True)
        )
        (line,) = self.start(settings)
        port = int(line.partition("127.0.0.1:")[2].partition(" ")[0])
        self.assertEqual(self.balancer.https_port, port)

    def test_port_chosen_by_the_kernel(self) -> None:
        """Port 0 is shown as the port that the kernel has chosen."""
        (line,) = self.start(self.settings(TcpAddress("127.0.0.1", 0)))
        self.assertNotIn("127.0.0.1:0 ", line)
        port = int(line.partition("127.0.0.1:")[2].partition(" ")[0])
        socket.create_connection(("127.0.0.1", port)).close()

    def test_other_addresses(self) -> None:
        """Unix sockets, endpoint descriptions and the PROXY protocol have forms of their own."""
        path, proxied = UnixAddress(f"{self.folder}/s"), self.address()
        local = ProxyProtocolAddress(UnixAddress(f"{self.folder}/p"))
        endpoint = EndpointAddress(f"tcp:{self.address().port}:interface=127.0.0.1")
        binds = (path, endpoint, ProxyProtocolAddress(proxied), local)
        self.assertEqual(
            self.start(self.settings(*binds)),
            [
                f"listening on unix:{self.folder}/s (http) -> {TARGET}",
                f"listening on {endpoint} (http) -> {TARGET}",
                f"listening on http://{proxied} (PROXY protocol) -> {TARGET}",
                f"listening on unix:{self.folder}/p (http, PROXY protocol) -> {TARGET}",
            ],
        )

    def test_routes(self) -> None:
        """The pools of routes are named after the default pool."""
        address = self.address()
        routes = (RouteSettings("api", path="/v1"), RouteSettings("app", path="/v2"))
        (line,) = self.start(self.settings(address, routes=routes))
        self.assertTrue(line.endswith(f"-> {TARGET} and 2 routes (pools api, app)"), line)
        settings = self.settings(self.address(), pool="api", routes=routes[:1])
        (line,) = self.reload(settings)
        expected = "-> pool api (1 server, least-connections) and 1 route (pool api)"
        self.assertTrue(line.endswith(expected), line)

    def test_admin_api(self) -> None:
        """The admin API has a line too."""
        address, admin = self.address(), self.address()
        settings = evolve(self.settings(address), admin=AdminSettings(admin))
        self.assertEqual(
            self.start(settings),
            [
                f"listening on http://{address} -> {TARGET}",
                f"listening on http://{admin} -> admin API",
            ],
        )

    def test_reload(self) -> None:
        """A reload logs new listeners only; their servers are the new ones."""
        old, new = self.address(), self.address()
        self.start(self.settings(old))
        self.assertEqual(self.reload(self.settings(old, max_body=5)), [])
        settings = evolve(self.settings(old, new), pools=(evolve(APP, servers=SERVERS[:2]), API))
        expected = f"listening on http://{new} -> pool app (2 servers, round-robin)"
        self.assertEqual(self.reload(settings), [expected])

    def test_demo(self) -> None:
        """With demo servers, the line counts them, and a command to try follows."""
        address = self.address("0.0.0.0")
        settings = evolve(self.settings(address), pools=(PoolSettings("app"), API), demo=2)
        self.assertEqual(
            self.start(settings),
            [
                f"listening on http://{address} -> pool app (2 servers, round-robin)",
                f"try: curl http://localhost:{address.port}/",
            ],
        )

    def test_demo_with_tls(self) -> None:
        """The command is for the frontend with TLS, and accepts a self-signed certificate."""
        redirecting, address = self.address(), self.address()
        tls = FrontendTlsSettings(self_signed=True)
        settings = evolve(self.settings(address, tls=tls), demo=1)
        redirect = FrontendSettings("plain", bind=(redirecting,), redirect_https=True)
        settings = evolve(settings, frontends=(redirect, *settings.frontends))
        self.assertEqual(self.start(settings)[-1], f"try: curl -k https://{address}/")

    def test_commands_with_tls(self) -> None:
        """curl verifies the certificate only if it is from a file."""
        address = TcpAddress("127.0.0.1", 443)
        file = CertificateSource("a.pem")
        for tls, options in (
            (FrontendTlsSettings(certificates=(file,)), ""),
            (FrontendTlsSettings(certificates=(file,), acme=("a.example",)), ""),
            (FrontendTlsSettings(certificates=(file,), self_signed=True), " -k"),
            (FrontendTlsSettings(self_signed=True), " -k"),
            (FrontendTlsSettings(acme=("a.example",)), " -k"),
        ):
            self.assertEqual(curl_command(address, tls), f"curl{options} https://{address}/")
            self.assertEqual(
                curl_command(UnixAddress("/run/s"), tls),
                f"curl{options} --unix-socket /run/s https://localhost/",
            )

    def test_demo_at_other_addresses(self) -> None:
        """The command is for the first listener that curl can use."""
        path = os.path.join(self.folder, "s")
        proxied = ProxyProtocolAddress(self.address())
        settings = evolve(self.settings(proxied, UnixAddress(path)), demo=1)
        self.assertEqual(
            self.start(settings)[-1], f"try: curl --unix-socket {path} http://localhost/"
        )
