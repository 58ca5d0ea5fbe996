"""Runtime changes over restarts and reloads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.settings import (
    AdminState,
    FrontendSettings,
    PoolSettings,
    ServerSettings,
    ServerSource,
    Settings,
)
from balancebeam.server.balancer import BalancerService
from balancebeam.state.codec import ServerState, State, encode_state
from balancebeam.state.service import StateService
from balancebeam.state.snapshot import restore, take_snapshot
from balancebeam.state.store import load_state, write_state
from balancebeam.upstream.server import Server
from tests.helpers.memory import MemoryBalancer
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    respond_with,
    run_balancer,
)

ONE, TWO, NEW = (TcpAddress(f"10.0.0.{number}", 80) for number in (1, 2, 9))


def app_settings(*servers: ServerSettings, more: tuple[PoolSettings, ...] = ()) -> Settings:
    """Settings of a pool `app` with these servers, and of more pools."""
    return Settings((FrontendSettings(bind=()),), (PoolSettings("app", servers), *more))


class PersistenceTestCase(SynchronousTestCase):
    """Balancers with a state file, which is written synchronously."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "state")

    def start(self, settings: Settings, path: str | None = "") -> MemoryBalancer:
        """A balancer with the state file of this test, or with that at `path`, or with none."""
        balancer = MemoryBalancer.from_settings(settings)
        self.addCleanup(balancer.stop)
        service = balancer.service
        service.defer_to_thread = self._call  # type: ignore[method-assign]
        state = self.path if path == "" else path
        service.apply(evolve(settings, state=state))
        return balancer

    def _call(self, call: Any, *arguments: Any) -> Deferred[Any]:
        """Run a call without a thread."""
        return succeed(call(*arguments))

    def restart(self, settings: Settings) -> MemoryBalancer:
        """A new balancer with the same state file."""
        return self.start(settings)

    def server(self, balancer: MemoryBalancer, address: Any, pool: str = "app") -> Server:
        """The server of a pool at `address`."""
        server = balancer.service.pools[pool].server_set.find(address)
        assert server is not None, address
        return server

    def change(self, balancer: MemoryBalancer, address: Any, **changes: Any) -> None:
        """Change weight or admin state of a server as the admin API does."""
        service = balancer.service
        server = self.server(balancer, address)
        change = service.admin_operations.change(service.pools["app"], server, changes)
        self.successResultOf(Deferred.fromCoroutine(change))

    def register(self, balancer: MemoryBalancer, address: Any, weight: int = 1) -> None:
        """Register a server."""
        server = ServerSettings(address, weight)
        balancer.service.server_set.add(server, ServerSource.REGISTERED)
        self.successResultOf(balancer.service.save())

    def saved_servers(self) -> dict[str, Any]:
        """The servers of the pool `app` in the state file, by address."""
        with open(self.path, "rb") as file:
            pools = json.load(file)["pools"]
        return {server["address"]: server for server in pools.get("app", [])}


BOTH = app_settings(ServerSettings(ONE, 3), ServerSettings(TWO))


class PersistenceTests(PersistenceTestCase):
    """Runtime changes survive a restart."""

    def test_weights_and_admin_states(self) -> None:
        """Weights and admin states are restored, and keep servers from traffic."""
        first = self.start(BOTH)
        self.change(first, ONE, weight=7, state="drain")
        self.change(first, TWO, state="maintenance")
        second = self.restart(BOTH)
        one, two = self.server(second, ONE), self.server(second, TWO)
        self.assertEqual((one.weight, one.configured_weight), (7, 3))
        self.assertEqual((one.admin_state, one.status), (AdminState.DRAIN, "draining"))
        self.assertEqual((two.weight, two.admin_state), (1, AdminState.MAINTENANCE))
        self.assertEqual(second.service.not_ready_reason(), "pool app has no available server")

    def test_registered_servers(self) -> None:
        """Registered servers are restored in order, with weight and admin state."""
        first = self.start(BOTH)
        for address, weight in ((NEW, 5), (UnixAddress("/run/a b\u00e9.sock"), 0)):
            self.register(first, address, weight)
        self.change(first, NEW, state="drain")
        second = self.restart(BOTH)
        new = self.server(second, NEW)
        self.assertEqual((new.weight, new.source), (5, ServerSource.REGISTERED))
        self.assertEqual(new.admin_state, AdminState.DRAIN)
        unix = self.server(second, UnixAddress("/run/a b\u00e9.sock"))
        self.assertEqual((unix.weight, unix.admin_state), (0, AdminState.READY))
        names = [server.name for server in second.servers]
        self.assertEqual(names, [server.name for server in first.servers])

    def test_configured_values_are_not_saved(self) -> None:
        """A server whose values are as configured is not in the file."""
        first = self.start(BOTH)
        self.change(first, ONE, weight=9, state="drain")
        self.assertEqual(set(self.saved_servers()), {"10.0.0.1:80"})
        self.change(first, ONE, weight=3, state="ready")
        self.assertEqual(self.saved_servers(), {})

    def test_removed_server(self) -> None:
        """A registered server that was removed is not restored."""
        first = self.start(BOTH)
        self.register(first, NEW)
        remove = first.service.admin_operations.remove(
            first.service.pools["app"], self.server(first, NEW)
        )
        self.successResultOf(Deferred.fromCoroutine(remove))
        self.assertEqual(self.saved_servers(), {})
        self.assertEqual(len(self.restart(BOTH).servers), 2)

    def test_demo_servers_are_not_saved(self) -> None:
        """Demo servers are not in the file."""
        first = self.start(BOTH)
        first.service.server_set.add(ServerSettings(NEW), ServerSource.DEMO)
        self.change(first, NEW, state="drain", weight=4)
        self.assertEqual(self.saved_servers(), {})
        first.service.server_set.remove(self.server(first, NEW))

    def test_no_state_file(self) -> None:
        """Without a state file nothing is written."""
        first = self.start(BOTH, None)
        self.change(first, ONE, weight=9)
        self.assertEqual(os.listdir(self.folder), [])

    def test_all_pools(self) -> None:
        """Servers at equal addresses of several pools are restored independently."""
        more = (PoolSettings("api", (ServerSettings(ONE),)),)
        both_pools = app_settings(ServerSettings(ONE), more=more)
        first = self.start(both_pools)
        first.service.pools["api"].health.set_weight(self.server(first, ONE, "api"), 6)
        first.service.save()
        second = self.restart(both_pools)
        self.assertEqual(self.server(second, ONE, "api").weight, 6)
        self.assertEqual(self.server(second, ONE).weight, 1)


class ChangedConfigurationTests(PersistenceTestCase):
    """The configuration wins where it changed the same value."""

    def test_changed_weight(self) -> None:
        """A weight that the configuration has changed is not restored; the admin state is."""
        first = self.start(BOTH)
        self.change(first, ONE, weight=7, state="drain")
        second = self.restart(app_settings(ServerSettings(ONE, 4), ServerSettings(TWO)))
        one = self.server(second, ONE)
        self.assertEqual((one.weight, one.admin_state), (4, AdminState.DRAIN))

    def test_removed_from_configuration(self) -> None:
        """A server that is no longer configured is not restored."""
        first = self.start(BOTH)
        self.change(first, TWO, weight=7)
        second = self.restart(app_settings(ServerSettings(ONE, 3)))
        self.assertEqual([server.name for server in second.servers], ["10.0.0.1:80"])

    def test_removed_pool(self) -> None:
        """The state of an unknown pool is ignored with a warning."""
        first = self.start(app_settings(ServerSettings(ONE), more=(PoolSettings("api"),)))
        first.service.pools["api"].server_set.add(ServerSettings(NEW), ServerSource.REGISTERED)
        first.service.save()
        with capturedLogs() as events:
            second = self.restart(app_settings(ServerSettings(ONE)))
        texts = [formatEvent(event) for event in events]
        self.assertIn("ignoring saved state of unknown pool 'api'", texts)
        self.assertEqual(len(second.servers), 1)

    def test_registered_server_becomes_configured(self) -> None:
        """A registered server that is configured now has the configured weight."""
        first = self.start(app_settings(ServerSettings(ONE)))
        self.register(first, NEW, 8)
        self.change(first, NEW, state="drain")
        second = self.restart(app_settings(ServerSettings(ONE), ServerSettings(NEW, 2)))
        new = self.server(second, NEW)
        self.assertEqual((new.weight, new.source), (2, ServerSource.CONFIGURED))
        self.assertEqual(new.admin_state, AdminState.DRAIN)
        self.assertEqual(len(second.servers), 2)

    def test_registered_server_leaves_with_the_configuration(self) -> None:
        """A registered server that was configured, and then removed, is not restored."""
        balancer = self.start(app_settings(ServerSettings(ONE)))
        self.register(balancer, NEW)
        service = balancer.service
        for loaded in (
            app_settings(ServerSettings(ONE), ServerSettings(NEW)),
            app_settings(ServerSettings(ONE)),
        ):
            self.load_from(service, evolve(loaded, state=self.path))
            service.reload()
        self.assertEqual(self.saved_servers(), {})
        self.assertEqual(len(self.restart(app_settings(ServerSettings(ONE))).servers), 1)

    def load_from(self, service: BalancerService, loaded: Settings) -> None:
        """Have reloads load these settings."""
        service.load_settings = lambda: loaded


class StateFileTests(PersistenceTestCase):
    """State files that change, are missing or damaged."""

    def test_file_configured_by_a_reload(self) -> None:
        """Changes before the reload are newer than the file, and are saved to it."""
        older = State(
            {
                "app": (
                    ServerState(ONE, admin_state=AdminState.MAINTENANCE),
                    ServerState(TWO, 9, 1),
                )
            }
        )
        write_state(self.path, encode_state(older))
        balancer = self.start(BOTH, None)
        self.change(balancer, ONE, state="drain", weight=5)
        self.register(balancer, NEW)
        balancer.service.apply(evolve(BOTH, state=self.path))
        one = self.server(balancer, ONE)
        self.assertEqual((one.admin_state, one.weight), (AdminState.DRAIN, 5))
        self.assertEqual(self.server(balancer, TWO).weight, 9)
        self.assertEqual(set(self.saved_servers()), {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"})

    def test_another_file(self) -> None:
        """A reload can change the state file; the old one is not written any more."""
        balancer = self.start(BOTH)
        self.change(balancer, ONE, weight=5)
        other = self.path + "2"
        balancer.service.apply(evolve(BOTH, state=other))
        state = load_state(other)
        assert state is not None
        self.assertEqual([server.weight for server in state.pools["app"]], [5])
        self.change(balancer, ONE, weight=6)
        self.assertEqual(self.saved_servers()["10.0.0.1:80"]["weight"], 5)

    def test_file_removed_by_a_reload(self) -> None:
        """A reload can remove the state file from the configuration."""
        balancer = self.start(BOTH)
        self.change(balancer, ONE, weight=5)
        balancer.service.apply(BOTH)
        self.change(balancer, ONE, weight=6)
        self.assertEqual(self.saved_servers()["10.0.0.1:80"]["weight"], 5)
        self.assertIsNone(balancer.service.state)

    def test_damaged_files(self) -> None:
        """A damaged file is renamed, the balancer starts, and writes a new one."""
        for content in (
            b"",
            b'{"format": "balancebeam state", "ver',
            b"\xff\xfe",
            b"[]",
            b"x" * 99,
        ):
            with open(self.path, "wb") as file:
                file.write(content)
            with capturedLogs() as events:
                balancer = self.start(BOTH)
            texts = " ".join(formatEvent(event) for event in events)
            self.assertIn("ignored", texts)
            self.assertEqual([server.weight for server in balancer.servers], [3, 1])
            self.assertFalse(os.path.exists(self.path))
            self.change(balancer, ONE, weight=5)
            self.assertEqual(self.saved_servers()["10.0.0.1:80"]["weight"], 5)
            os.unlink(self.path)

    def test_write_failure(self) -> None:
        """A failed write is logged, and the change stays in force."""
        balancer = self.start(BOTH)
        service = balancer.service
        assert service.state is not None
        service.state.disownServiceParent()
        service.state = None
        service.apply(evolve(service.settings, state=os.path.join(self.folder, "nowhere", "state")))
        with capturedLogs() as events:
            self.change(balancer, ONE, weight=5)
        self.assertIn("not written", " ".join(formatEvent(event) for event in events))
        self.assertEqual(self.server(balancer, ONE).weight, 5)
        self.assertEqual(self.flushLoggedErrors(), [])


class SnapshotTests(SynchronousTestCase):
    """Snapshots without a file, and the end of the service."""

    def test_registered_server_with_tls(self) -> None:
        """A server that was registered with TLS has TLS after a restore; a configured one not."""
        servers = (
            ServerState(ONE, 2, 3, tls=True),
            ServerState(NEW, 1, None, registered=True, tls=True),
        )
        balancer = MemoryBalancer.from_settings(BOTH)
        restore(State({"app": servers}), balancer.service.pools, Logger())
        server_set = balancer.service.server_set
        found = {server.address: server.uses_tls for server in server_set.servers}
        self.assertEqual((found[ONE], found[NEW]), (False, True))
        self.assertEqual(take_snapshot(balancer.service.pools).pools["app"][-1], servers[1])
        balancer.stop()

    def test_restore_is_idempotent(self) -> None:
        """A snapshot after one or two restores equals the restored state."""
        state = State(
            {
                "app": (
                    ServerState(ONE, 9, 3, AdminState.DRAIN),
                    ServerState(NEW, 2, None, AdminState.MAINTENANCE, True),
                )
            }
        )
        balancer = MemoryBalancer.from_settings(BOTH)
        for _ in range(2):
            restore(state, balancer.service.pools, Logger())
            self.assertEqual(take_snapshot(balancer.service.pools), state)
        balancer.stop()

    def test_stop_waits_for_the_last_write(self) -> None:
        """Stopping the service finishes when the last write has."""
        writes: list[Deferred[None]] = []

        def defer(*_: Any) -> Deferred[None]:
            """Leave the write pending."""
            writes.append(Deferred())
            return writes[-1]

        service = StateService("/nowhere", dict, defer)
        saved = service.save()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        writes[0].callback(None)
        self.successResultOf(stopped)
        self.assertIsNone(self.successResultOf(saved))


def admin_request(port: int, method: str, path: str, body: Any = None) -> Any:
    """Send a request to the admin API at `port`, and return the data of the response."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(head.encode() + content)
        return json.loads(read_all(client).partition(b"\r\n\r\n")[2])["data"]


def test_restart_after_kill(tmp_path: Path) -> None:
    """Changes that were answered survive SIGKILL, and later ones a regular restart."""
    admin = free_port()
    with ScriptedServer(respond_with("one")) as one, ScriptedServer(respond_with("two")) as two:
        options = ["--admin", f"127.0.0.1:{admin}", "--upstream", one.address]
        options += ["--state", str(tmp_path / "state")]
        path = f"/upstreams/app/{one.address}"
        with run_balancer(tmp_path, *options) as running:
            assert admin_request(admin, "POST", "/register", {"address": two.address, "weight": 7})
            assert admin_request(admin, "PATCH", path, {"state": "drain", "weight": 2})
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
            running.process.returncode = 0
        with run_balancer(tmp_path, *options):
            servers = [
                (server["address"], server["weight"], server["state"], server["source"])
                for server in admin_request(admin, "GET", "/upstreams")
            ]
            assert servers == [
                (one.address, 2, "draining", "configured"),
                (two.address, 7, "up", "registered"),
            ]
            admin_request(admin, "PATCH", path, {"state": "ready"})
            admin_request(admin, "DELETE", f"/upstreams/app/{two.address}")
        with run_balancer(tmp_path, *options):
            (server,) = admin_request(admin, "GET", "/upstreams")
            assert (server["address"], server["weight"], server["state"]) == (one.address, 2, "up")
