"""Listening sockets that somebody else has opened, and what is said of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import (
    EndpointAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.errors import ConfigError
from balancebeam.process.hot_restart import NewProcess, original_command
from balancebeam.process.inherited_sockets import (
    PARENT_VARIABLE,
    SOCKETS_VARIABLE,
    find_inherited_sockets,
    listening_address,
)
from balancebeam.process.pid_file import PidFile
from balancebeam.process.systemd import SystemdNotifier
from balancebeam.server.listeners import InheritedSocket, Listener, ListenersService


class SocketEnvironmentTests(SynchronousTestCase):
    """What the environment tells of sockets."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"

    def test_addresses(self) -> None:
        self.assertEqual(listening_address(self.listening.fileno()), self.address)
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
            self.assertEqual(listening_address(six.fileno()), f"[::1]:{six.getsockname()[1]}")
        with socket.socket(socket.AF_UNIX) as local, tempfile.TemporaryDirectory() as folder:
            local.bind(f"{folder}/s")
            self.assertIsNone(listening_address(local.fileno()))
            local.listen()
            self.assertEqual(listening_address(local.fileno()), f"unix:{folder}/s")
        with open(os.devnull, "rb") as file:
            self.assertIsNone(listening_address(file.fileno()))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            self.assertIsNone(listening_address(datagrams.fileno()))
        self.assertIsNone(listening_address(10**6))

    def test_from_a_predecessor(self) -> None:
        number = self.listening.fileno()
        environment = {
            SOCKETS_VARIABLE: json.dumps({self.address: (number, False), "gone": (10**6, False)}),
            PARENT_VARIABLE: str(os.getppid()),
        }
        found = find_inherited_sockets(environment)
        self.assertEqual(found, {self.address: InheritedSocket(number, False)})
        # Who the predecessor is has still to be known; the sockets are taken.
        self.assertEqual(list(environment), [PARENT_VARIABLE])

    def test_not_from_a_stranger(self) -> None:
        number = self.listening.fileno()
        environment = {
            SOCKETS_VARIABLE: json.dumps({self.address: (number, False)}),
            PARENT_VARIABLE: str(os.getpid()),
        }
        self.assertEqual(find_inherited_sockets(environment), {})
        self.assertNotIn(SOCKETS_VARIABLE, environment)

    def test_nonsense(self) -> None:
        for text in ("x", "[]", "3"):
            environment = {SOCKETS_VARIABLE: text, PARENT_VARIABLE: str(os.getppid())}
            self.assertEqual(find_inherited_sockets(environment), {})
        for process, count in ((str(os.getpid()), "x"), ("", "1"), ("1", "1")):
            self.assertEqual(
                find_inherited_sockets({"LISTEN_PID": process, "LISTEN_FDS": count}), {}
            )


class InheritedSocketTests(SynchronousTestCase):
    """Listening with a socket that is there already."""

    def listeners(self, **inherited: InheritedSocket) -> ListenersService:
        service = ListenersService(reactor, reactor, lambda: inherited)
        self.addCleanup(service.close)
        return service

    def path(self) -> str:
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        return f"{folder}/s"

    def listening(self, path: str) -> int:
        local = socket.socket(socket.AF_UNIX)
        local.bind(path)
        local.listen()
        return local.detach()

    def test_a_unix_socket_is_left_to_who_has_it(self) -> None:
        path = self.path()
        self.addCleanup(os.unlink, path)
        inherited = {f"unix:{path}": InheritedSocket(self.listening(path), True)}
        service = self.listeners(**inherited)
        opened = service.bind([UnixAddress(path)])
        self.assertEqual(list(opened), [UnixAddress(path)])
        service.activate({UnixAddress(path): NullFactory()}, opened)
        service.own_socket_files()
        self.successResultOf(service.close())
        self.assertTrue(os.path.exists(path))

    def test_a_predecessors_is_owned_in_the_end(self) -> None:
        path = self.path()
        service = self.listeners(**{f"unix:{path}": InheritedSocket(self.listening(path), False)})
        service.activate({UnixAddress(path): NullFactory()}, service.bind([UnixAddress(path)]))
        sockets, stuck = service.export_sockets()
        self.assertEqual((list(sockets), list(stuck)), ([f"unix:{path}"], []))
        service.own_socket_files()
        self.assertFalse(service.export_sockets()[0][f"unix:{path}"].keep_path)
        self.successResultOf(service.close())
        self.assertFalse(os.path.exists(path))

    def test_one_that_is_bequeathed_stays(self) -> None:
        path = self.path()
        service = self.listeners()
        service.activate({UnixAddress(path): NullFactory()}, service.bind([UnixAddress(path)]))
        service.disown_socket_files()
        self.successResultOf(service.close())
        self.assertTrue(os.path.exists(path))
        # Nobody is behind it any more, so that the next one takes the place.
        service.activate({UnixAddress(path): NullFactory()}, service.bind([UnixAddress(path)]))
        self.successResultOf(service.close())
        self.assertFalse(os.path.exists(path))

    def test_one_that_somebody_removed(self) -> None:
        path = self.path()
        service = self.listeners()
        service.activate({UnixAddress(path): NullFactory()}, service.bind([UnixAddress(path)]))
        os.unlink(path)
        self.successResultOf(service.close())

    def test_another_greeting_at_the_same_place(self) -> None:
        place = TcpAddress("127.0.0.1", free())
        service = self.listeners()
        service.activate({place: NullFactory()}, service.bind([place]))
        port = service.listeners[place].port
        proxied = ProxyProtocolAddress(place)
        self.assertEqual(service.bind([proxied]), {})
        site = NullFactory()
        service.activate({proxied: site}, {})
        self.assertIs(service.listeners[place].factory, site)
        self.assertIs(service.listeners[place].port, port)

    def test_it_fails_as_a_whole(self) -> None:
        place = TcpAddress("127.0.0.1", free())
        with socket.create_server(("127.0.0.1", 0)) as taken:
            used = TcpAddress("127.0.0.1", taken.getsockname()[1])
            path = UnixAddress("/nowhere/at/all")
            service = self.listeners()
            error = self.assertRaises(ConfigError, service.bind, [place, used, path])
        self.assertEqual(len(error.problems), 2)
        # The one that could be had was let go.
        socket.create_server(("127.0.0.1", place.port)).close()

    def test_closing_twice_and_listening_again_at_once(self) -> None:
        place = TcpAddress("127.0.0.1", free())
        service = self.listeners()
        for _ in range(3):
            service.activate({place: NullFactory()}, service.bind([place]))
            service.activate({}, {})
        self.assertEqual(service.listeners, {})

    def test_what_cannot_be_handed_over(self) -> None:
        fancy = EndpointAddress("ssl:443:privateKey=key.pem")
        service = self.listeners()
        service.listeners[fancy] = Listener()
        sockets, stuck = service.export_sockets()
        self.assertEqual((sockets, list(stuck)), ({}, [str(fancy)]))


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class NullFactory:
    """Lets everybody in, and has nothing to say."""

    def buildProtocol(self, addr: Any) -> Protocol:
        return Protocol()


class HotRestartTests(SynchronousTestCase):
    """What goes on around a successor."""

    def test_the_pid_file_makes_way_and_comes_back(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "twistd.pid")
        path.write_text("7")
        options: dict[str, Any] = {"pidfile": str(path)}
        pid_file = PidFile(options)
        pid_file.move_aside()
        self.assertFalse(path.exists())
        self.assertEqual(options["pidfile"], f"{path}.old")
        # A successor that ended may have left its own.
        path.write_text("8")
        pid_file.restore()
        self.assertEqual((path.read_text(), options["pidfile"]), ("7", str(path)))
        pid_file.restore()
        PidFile({}).move_aside()
        PidFile({"pidfile": ""}).restore()

    def test_its_end_is_told(self) -> None:
        ends: list[str] = []
        gone: Callable[[], object] = lambda: ends.append("gone")  # noqa: E731
        NewProcess(gone).processExited(Failure(OSError("it fell")))
        self.assertEqual(ends, ["gone"])

    def test_how_this_program_was_started(self) -> None:
        self.assertEqual(original_command()[0], sys.executable)
        with mock.patch.object(sys, "orig_argv", None, create=True):
            with mock.patch.object(sys, "argv", ["x", "-n", "balancebeam"]):
                self.assertEqual(original_command()[-2:], ["-n", "balancebeam"])
                self.assertIn("twistd", original_command()[2])

    def test_a_manager_that_does_not_listen(self) -> None:
        SystemdNotifier({}).ready()
        SystemdNotifier({"NOTIFY_SOCKET": "/nowhere"}).ready()
        SystemdNotifier({"NOTIFY_SOCKET": "@nobody-here"}).stopping()
