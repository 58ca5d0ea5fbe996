"""What was set at run time, over restarts."""

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
from balancebeam.state.service import StateService, restore, take_snapshot
from balancebeam.state.store import load_state, write_state
from balancebeam.upstream.server import Server
from tests.helpers.memory import MemoryBalancer
from tests.helpers.processes import TIMEOUT, free_port, read_all, respond_with, run_balancer
from tests.helpers.processes import ScriptedServer as RealServer

ONE, TWO, NEW = (TcpAddress(f"10.0.0.{number}", 80) for number in (1, 2, 9))


def settings(*servers: ServerSettings, more: tuple[PoolSettings, ...] = ()) -> Settings:
    return Settings((FrontendSettings(bind=()),), (PoolSettings("app", servers), *more))


class PersistenceTestCase(SynchronousTestCase):
    """Balancers with state in a file, which is written at once."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "state")

    def start(self, wanted: Settings, path: str | None = "") -> MemoryBalancer:
        """A balancer that goes by the file, unless `path` says otherwise."""
        balancer = MemoryBalancer.from_settings(wanted)
        self.addCleanup(balancer.stop)
        service = balancer.service
        service.defer_to_thread = self._at_once  # type: ignore[method-assign]
        place = self.path if path == "" else path
        service.apply(evolve(wanted, state=place))
        return balancer

    def _at_once(self, call: Any, *arguments: Any) -> Deferred[Any]:
        return succeed(call(*arguments))

    def restart(self, wanted: Settings) -> MemoryBalancer:
        return self.start(wanted)

    def server(self, balancer: MemoryBalancer, address: Any, pool: str = "app") -> Server:
        found = balancer.service.pools[pool].server_set.find(address)
        assert found is not None, address
        return found

    def change(self, balancer: MemoryBalancer, address: Any, **wishes: Any) -> None:
        service = balancer.service
        server = self.server(balancer, address)
        change = service.admin_operations.change(service.pools["app"], server, wishes)
        self.successResultOf(Deferred.fromCoroutine(change))

    def add(self, balancer: MemoryBalancer, address: Any, weight: int = 1) -> None:
        wanted = ServerSettings(address, weight)
        balancer.service.server_set.add(wanted, ServerSource.REGISTERED)
        self.successResultOf(balancer.service.save())

    def kept(self) -> dict[str, Any]:
        """What the file says of the servers of a pool, by address."""
        with open(self.path, "rb") as file:
            pools = json.load(file)["pools"]
        return {one["address"]: one for one in pools.get("app", [])}


BOTH = settings(ServerSettings(ONE, 3), ServerSettings(TWO))


class PersistenceTests(PersistenceTestCase):
    """What outlives a restart."""

    def test_weights_and_marks(self) -> None:
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
        first = self.start(BOTH)
        for address, weight in ((NEW, 5), (UnixAddress("/run/a b\u00e9.sock"), 0)):
            self.add(first, address, weight)
        self.change(first, NEW, state="drain")
        second = self.restart(BOTH)
        new = self.server(second, NEW)
        self.assertEqual((new.weight, new.source), (5, ServerSource.REGISTERED))
        self.assertEqual(new.admin_state, AdminState.DRAIN)
        unix = self.server(second, UnixAddress("/run/a b\u00e9.sock"))
        self.assertEqual((unix.weight, unix.admin_state), (0, AdminState.READY))
        names = [one.name for one in second.servers]
        self.assertEqual(names, [one.name for one in first.servers])

    def test_what_is_as_configured_is_not_kept(self) -> None:
        first = self.start(BOTH)
        self.change(first, ONE, weight=9, state="drain")
        self.assertEqual(set(self.kept()), {"10.0.0.1:80"})
        self.change(first, ONE, weight=3, state="ready")
        self.assertEqual(self.kept(), {})

    def test_one_that_was_removed_stays_so(self) -> None:
        first = self.start(BOTH)
        self.add(first, NEW)
        remove = first.service.admin_operations.remove(
            first.service.pools["app"], self.server(first, NEW)
        )
        self.successResultOf(Deferred.fromCoroutine(remove))
        self.assertEqual(self.kept(), {})
        self.assertEqual(len(self.restart(BOTH).servers), 2)

    def test_demo_servers_are_not_kept(self) -> None:
        first = self.start(BOTH)
        first.service.server_set.add(ServerSettings(NEW), ServerSource.DEMO)
        self.change(first, NEW, state="drain", weight=4)
        self.assertEqual(self.kept(), {})
        first.service.server_set.remove(self.server(first, NEW))

    def test_no_state(self) -> None:
        first = self.start(BOTH, None)
        self.change(first, ONE, weight=9)
        self.assertEqual(os.listdir(self.folder), [])

    def test_all_pools(self) -> None:
        more = (PoolSettings("api", (ServerSettings(ONE),)),)
        wanted = settings(ServerSettings(ONE), more=more)
        first = self.start(wanted)
        first.service.pools["api"].health.set_weight(self.server(first, ONE, "api"), 6)
        first.service.save()
        second = self.restart(wanted)
        self.assertEqual(self.server(second, ONE, "api").weight, 6)
        self.assertEqual(self.server(second, ONE).weight, 1)


class ChangedConfigurationTests(PersistenceTestCase):
    """The configuration wins where it has changed the very value."""

    def test_a_weight_that_the_configuration_has_changed(self) -> None:
        first = self.start(BOTH)
        self.change(first, ONE, weight=7, state="drain")
        second = self.restart(settings(ServerSettings(ONE, 4), ServerSettings(TWO)))
        one = self.server(second, ONE)
        self.assertEqual((one.weight, one.admin_state), (4, AdminState.DRAIN))

    def test_a_server_that_has_left(self) -> None:
        first = self.start(BOTH)
        self.change(first, TWO, weight=7)
        second = self.restart(settings(ServerSettings(ONE, 3)))
        self.assertEqual([one.name for one in second.servers], ["10.0.0.1:80"])

    def test_a_pool_that_has_left(self) -> None:
        first = self.start(settings(ServerSettings(ONE), more=(PoolSettings("api"),)))
        first.service.pools["api"].server_set.add(ServerSettings(NEW), ServerSource.REGISTERED)
        first.service.save()
        with capturedLogs() as events:
            second = self.restart(settings(ServerSettings(ONE)))
        texts = [formatEvent(event) for event in events]
        self.assertIn("the state knows of a pool 'api', which is no more", texts)
        self.assertEqual(len(second.servers), 1)

    def test_a_registered_server_that_is_configured_by_now(self) -> None:
        first = self.start(settings(ServerSettings(ONE)))
        self.add(first, NEW, 8)
        self.change(first, NEW, state="drain")
        second = self.restart(settings(ServerSettings(ONE), ServerSettings(NEW, 2)))
        new = self.server(second, NEW)
        self.assertEqual((new.weight, new.source), (2, ServerSource.CONFIGURED))
        self.assertEqual(new.admin_state, AdminState.DRAIN)
        self.assertEqual(len(second.servers), 2)

    def test_it_does_not_come_back_when_it_has_left_the_file(self) -> None:
        """A reload is written down, so that no older state returns."""
        balancer = self.start(settings(ServerSettings(ONE)))
        self.add(balancer, NEW)
        service = balancer.service
        for wanted in (
            settings(ServerSettings(ONE), ServerSettings(NEW)),
            settings(ServerSettings(ONE)),
        ):
            self.read_from(service, evolve(wanted, state=self.path))
            service.reload()
        self.assertEqual(self.kept(), {})
        self.assertEqual(len(self.restart(settings(ServerSettings(ONE))).servers), 1)

    def read_from(self, service: BalancerService, wanted: Settings) -> None:
        service.load_settings = lambda: wanted


class StateFileTests(PersistenceTestCase):
    """Files that come and go, and those that are no state."""

    def test_a_file_that_is_named_by_a_reload(self) -> None:
        """What was set until then is newer than what the file says."""
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
        self.add(balancer, NEW)
        balancer.service.apply(evolve(BOTH, state=self.path))
        one = self.server(balancer, ONE)
        self.assertEqual((one.admin_state, one.weight), (AdminState.DRAIN, 5))
        self.assertEqual(self.server(balancer, TWO).weight, 9)
        self.assertEqual(set(self.kept()), {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"})

    def test_another_file(self) -> None:
        balancer = self.start(BOTH)
        self.change(balancer, ONE, weight=5)
        other = self.path + "2"
        balancer.service.apply(evolve(BOTH, state=other))
        kept = load_state(other)
        assert kept is not None
        self.assertEqual([one.weight for one in kept.pools["app"]], [5])
        self.change(balancer, ONE, weight=6)
        self.assertEqual(self.kept()["10.0.0.1:80"]["weight"], 5)

    def test_no_file_any_more(self) -> None:
        balancer = self.start(BOTH)
        self.change(balancer, ONE, weight=5)
        balancer.service.apply(BOTH)
        self.change(balancer, ONE, weight=6)
        self.assertEqual(self.kept()["10.0.0.1:80"]["weight"], 5)
        self.assertIsNone(balancer.service.state)

    def test_torn_and_foreign_files(self) -> None:
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
            self.assertIn("is not used", texts)
            self.assertEqual([one.weight for one in balancer.servers], [3, 1])
            self.assertFalse(os.path.exists(self.path))
            self.change(balancer, ONE, weight=5)
            self.assertEqual(self.kept()["10.0.0.1:80"]["weight"], 5)
            os.unlink(self.path)

    def test_a_folder_that_cannot_be_written(self) -> None:
        balancer = self.start(BOTH)
        service = balancer.service
        assert service.state is not None
        service.state.disownServiceParent()
        service.state = None
        service.apply(evolve(service.settings, state=os.path.join(self.folder, "nowhere", "state")))
        with capturedLogs() as events:
            self.change(balancer, ONE, weight=5)
        self.assertIn("could not be written", " ".join(formatEvent(one) for one in events))
        self.assertEqual(self.server(balancer, ONE).weight, 5)
        self.assertEqual(self.flushLoggedErrors(), [])


class RoundTripTests(SynchronousTestCase):
    """`collect` and `restore` without a file."""

    def test_restored_twice_is_the_same(self) -> None:
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

    def test_stopping_waits_for_the_last_write(self) -> None:
        writes: list[Deferred[None]] = []

        def later(*_: Any) -> Deferred[None]:
            writes.append(Deferred())
            return writes[-1]

        service = StateService("/nowhere", dict, later)
        saved = service.save()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        writes[0].callback(None)
        self.successResultOf(stopped)
        self.assertIsNone(self.successResultOf(saved))


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    """What the admin listener at `port` answers."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(head.encode() + content)
        return json.loads(read_all(client).partition(b"\r\n\r\n")[2])["data"]


def test_over_a_restart_and_a_kill(tmp_path: Path) -> None:
    """What was answered for is there again, even when the program could say no goodbye."""
    admin = free_port()
    with RealServer(respond_with("one")) as one, RealServer(respond_with("two")) as two:
        options = ["--admin", f"127.0.0.1:{admin}", "--upstream", one.address]
        options += ["--state", str(tmp_path / "state")]
        path = f"/upstreams/app/{one.address}"
        with run_balancer(tmp_path, *options) as running:
            assert ask(admin, "POST", "/register", {"address": two.address, "weight": 7})
            assert ask(admin, "PATCH", path, {"state": "drain", "weight": 2})
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
            running.process.returncode = 0
        with run_balancer(tmp_path, *options):
            found = [
                (server["address"], server["weight"], server["state"], server["source"])
                for server in ask(admin, "GET", "/upstreams")
            ]
            assert found == [
                (one.address, 2, "draining", "configured"),
                (two.address, 7, "up", "registered"),
            ]
            ask(admin, "PATCH", path, {"state": "ready"})
            ask(admin, "DELETE", f"/upstreams/app/{two.address}")
        with run_balancer(tmp_path, *options):
            (server,) = ask(admin, "GET", "/upstreams")
            assert (server["address"], server["weight"], server["state"]) == (one.address, 2, "up")
