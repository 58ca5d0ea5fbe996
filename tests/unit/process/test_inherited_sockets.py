"""Listening sockets inherited from systemd or from the old process of a hot restart."""

from __future__ import annotations

import json
import os
import socket
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.process.inherited_sockets import (
    PARENT_VARIABLE,
    SOCKETS_VARIABLE,
    find_inherited_sockets,
    listening_address,
)
from balancebeam.server.listeners import InheritedSocket


class SocketEnvironmentTests(SynchronousTestCase):
    """Sockets that environment variables describe."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"

    def test_listening_address(self) -> None:
        """Only listening IPv4, IPv6 and Unix sockets have a listening address."""
        self.assertEqual(listening_address(self.listening.fileno()), self.address)
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as ipv6:
            self.assertEqual(listening_address(ipv6.fileno()), f"[::1]:{ipv6.getsockname()[1]}")
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

    def test_from_old_process(self) -> None:
        """Sockets of the parent process are found; descriptors that are not open are ignored."""
        descriptor = self.listening.fileno()
        environment = {
            SOCKETS_VARIABLE: json.dumps(
                {self.address: (descriptor, False), "closed": (10**6, False)}
            ),
            PARENT_VARIABLE: str(os.getppid()),
        }
        sockets = find_inherited_sockets(environment)
        self.assertEqual(sockets, {self.address: InheritedSocket(descriptor, False)})
        # The process id is still needed to stop the old process.
        self.assertEqual(list(environment), [PARENT_VARIABLE])

    def test_not_from_another_process(self) -> None:
        """Sockets of a process that is not the parent are ignored."""
        environment = {
            SOCKETS_VARIABLE: json.dumps({self.address: (self.listening.fileno(), False)}),
            PARENT_VARIABLE: str(os.getpid()),
        }
        self.assertEqual(find_inherited_sockets(environment), {})
        self.assertNotIn(SOCKETS_VARIABLE, environment)

    def test_malformed_variables(self) -> None:
        """Malformed variables, and variables for another process id, are ignored."""
        for text in ("x", "[]", "3"):
            environment = {SOCKETS_VARIABLE: text, PARENT_VARIABLE: str(os.getppid())}
            self.assertEqual(find_inherited_sockets(environment), {})
        for pid, count in ((str(os.getpid()), "x"), ("", "1"), ("1", "1")):
            self.assertEqual(find_inherited_sockets({"LISTEN_PID": pid, "LISTEN_FDS": count}), {})
