"""Listeners: binding, inherited sockets, socket files and their transfer."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import (
    EndpointAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.errors import ConfigError
from balancebeam.net.poller import build_data_reactor
from balancebeam.server.listeners import InheritedSocket, Listener, ListenersService


class NullFactory:
    """Accepts connections and ignores what they send."""

    def buildProtocol(self, addr: Any) -> Protocol:
        return Protocol()


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def listening_unix_socket(path: str) -> int:
    """The descriptor of a new socket that listens at `path`."""
    local = socket.socket(socket.AF_UNIX)
    local.bind(path)
    local.listen()
    return local.detach()


class ListenersTestCase(SynchronousTestCase):
    """A `ListenersService` with real sockets."""

    def listeners(self, **inherited: InheritedSocket) -> ListenersService:
        """A service that inherits sockets by address."""
        service = ListenersService(reactor, build_data_reactor(reactor), lambda: inherited)
        self.addCleanup(service.close)
        return service

    def activate(self, service: ListenersService, path: str) -> None:
        """Bind and activate a Unix socket."""
        address = UnixAddress(path)
        service.activate({address: NullFactory()}, service.bind([address]))

    def path(self) -> str:
        """The path for a socket in a folder that has to be empty at the end."""
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        return f"{folder}/s"


class SocketFileTests(ListenersTestCase):
    """Which process unlinks the file of a Unix socket."""

    def test_file_of_another_owner_is_kept(self) -> None:
        """The file of an inherited socket with `keep_path` is never unlinked."""
        path = self.path()
        self.addCleanup(os.unlink, path)
        inherited = {f"unix:{path}": InheritedSocket(listening_unix_socket(path), True)}
        service = self.listeners(**inherited)
        bound = service.bind([UnixAddress(path)])
        self.assertEqual(list(bound), [UnixAddress(path)])
        service.activate({UnixAddress(path): NullFactory()}, bound)
        service.own_socket_files()
        self.successResultOf(service.close())
        self.assertTrue(os.path.exists(path))

    def test_file_of_old_process_is_owned_at_the_end_of_the_start(self) -> None:
        """`own_socket_files` takes the ownership of files of the old process."""
        path = self.path()
        inherited = InheritedSocket(listening_unix_socket(path), False)
        service = self.listeners(**{f"unix:{path}": inherited})
        self.activate(service, path)
        sockets, not_transferable = service.export_sockets()
        self.assertEqual((list(sockets), list(not_transferable)), ([f"unix:{path}"], []))
        service.own_socket_files()
        self.assertFalse(service.export_sockets()[0][f"unix:{path}"].keep_path)
        self.successResultOf(service.close())
        self.assertFalse(os.path.exists(path))

    def test_file_of_transferred_socket_is_kept(self) -> None:
        """A file that was left to a new process stays; a stale file is replaced."""
        path = self.path()
        service = self.listeners()
        self.activate(service, path)
        service.disown_socket_files()
        self.successResultOf(service.close())
        self.assertTrue(os.path.exists(path))
        # No process listens at the file any more, so it is stale.
        self.activate(service, path)
        self.successResultOf(service.close())
        self.assertFalse(os.path.exists(path))

    def test_file_that_was_unlinked_by_another_process(self) -> None:
        """A missing file does not prevent the close."""
        path = self.path()
        service = self.listeners()
        self.activate(service, path)
        os.unlink(path)
        self.successResultOf(service.close())


class ListenersServiceTests(ListenersTestCase):
    """Binding, activation and transfer."""

    def test_proxy_protocol_at_the_same_address(self) -> None:
        """The socket is kept when its address gets the PROXY protocol."""
        address = TcpAddress("127.0.0.1", free_port())
        service = self.listeners()
        service.activate({address: NullFactory()}, service.bind([address]))
        port = service.listeners[address].port
        with_proxy_protocol = ProxyProtocolAddress(address)
        self.assertEqual(service.bind([with_proxy_protocol]), {})
        factory = NullFactory()
        service.activate({with_proxy_protocol: factory}, {})
        self.assertIs(service.listeners[address].factory, factory)
        self.assertIs(service.listeners[address].port, port)

    def test_bind_fails_as_a_whole(self) -> None:
        """All addresses that are not available are reported, and none stays bound."""
        address = TcpAddress("127.0.0.1", free_port())
        with socket.create_server(("127.0.0.1", 0)) as occupied:
            used = TcpAddress("127.0.0.1", occupied.getsockname()[1])
            path = UnixAddress("/nowhere/at/all")
            service = self.listeners()
            error = self.assertRaises(ConfigError, service.bind, [address, used, path])
        self.assertEqual(len(error.problems), 2)
        socket.create_server(("127.0.0.1", address.port)).close()

    def test_close_and_bind_again_at_once(self) -> None:
        """An address is available at once after its listener was closed."""
        address = TcpAddress("127.0.0.1", free_port())
        service = self.listeners()
        for _ in range(3):
            service.activate({address: NullFactory()}, service.bind([address]))
            service.activate({}, {})
        self.assertEqual(service.listeners, {})

    def test_endpoint_that_cannot_be_transferred(self) -> None:
        """Endpoints that are more than a socket are reported by `export_sockets`."""
        address = EndpointAddress("ssl:443:privateKey=key.pem")
        service = self.listeners()
        service.listeners[address] = Listener()
        sockets, not_transferable = service.export_sockets()
        self.assertEqual((sockets, list(not_transferable)), ({}, [str(address)]))
