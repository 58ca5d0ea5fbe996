"""The batch poller, on a real epoll and real sockets, without a running reactor."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from balancebeam.net.plain_reactor import PlainReactor
from balancebeam.net.poller import MAX_EVENTS, BatchPoller, build_data_reactor
from tests.helpers.net import FakeReactor


class FakeSelectable:
    """One end of a socket pair, which records the calls of the poller."""

    poll_first = False

    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.calls: list[str] = []
        self.outcome: Any = None
        self.on_read: Any = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> Any:
        self.calls.append("read")
        if self.on_read is not None:
            return self.on_read()
        if not self.socket.recv(100):
            return CONNECTION_DONE
        return self.outcome

    def read_before_eof(self) -> Any:
        return self.doRead()

    def doWrite(self) -> Any:
        self.calls.append("write")
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        self.calls.append("read lost")

    def connectionLost(self, reason: Failure) -> None:
        self.calls.append(f"lost: {type(reason.value).__name__}")

    def close(self) -> None:
        self.socket.close()
        self.peer.close()


class FakeTransport(FakeSelectable):
    """A selectable whose close and half-close are deferred, and fail if a test says so."""

    disconnected = 0
    _aborting = False

    def __init__(self) -> None:
        super().__init__()
        self.fail_on_shutdown: list[Exception] = []
        self.fail_on_close: list[Exception] = []

    def shutdown_write(self) -> None:
        self.calls.append("shutdown")
        if self.fail_on_shutdown:
            raise self.fail_on_shutdown[0]

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.fail_on_close:
            raise self.fail_on_close[0]


class BatchPollerTests(SynchronousTestCase):
    """Events that reach selectables, and registrations that are left behind."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.poller = BatchPoller(self.reactor)
        self.addCleanup(self.check_clean)

    def check_clean(self) -> None:
        """The poller leaves neither a registration nor a descriptor."""
        self.poller.removeAll()
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.poller.fileno(), -1)

    def selectable(self) -> FakeSelectable:
        """Return a selectable over a Unix socket pair."""
        selectable = FakeSelectable()
        self.addCleanup(selectable.close)
        return selectable

    def tcp_selectable(self) -> FakeSelectable:
        """Return a selectable over a TCP connection."""
        selectable = self.selectable()
        selectable.close()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            selectable.peer = socket.create_connection(listener.getsockname())
            selectable.socket, _ = listener.accept()
        selectable.socket.setblocking(False)
        return selectable

    def test_interfaces(self) -> None:
        """The poller is a reactor for selectables, and a selectable of a reactor."""
        verifyObject(IReactorFDSet, self.poller)
        verifyObject(IReadDescriptor, self.poller)

    def test_platform_without_epoll(self) -> None:
        """Where there is no epoll, data connections use the reactor itself."""
        self.assertIsInstance(build_data_reactor(self.reactor), BatchPoller)
        self.patch(select, "epoll", None)
        del select.epoll
        plain: Any = build_data_reactor(self.reactor)
        self.assertIsInstance(plain, PlainReactor)
        self.assertIs(plain._reactor, self.reactor)

    def test_registered_only_while_needed(self) -> None:
        """The poller is a reader of the reactor while it has registrations itself."""
        reader, writer = self.selectable(), self.selectable()
        self.poller.addReader(reader)
        self.poller.addWriter(writer)
        self.assertEqual(self.reactor.readers, [self.poller])
        self.assertEqual(self.poller.getReaders(), [reader])
        self.assertEqual(self.poller.getWriters(), [writer])
        self.poller.removeReader(reader)
        self.poller.removeWriter(reader)
        self.poller.removeWriter(writer)
        self.assertEqual(self.reactor.readers, [])

    def test_reading_and_writing(self) -> None:
        """Only events for which a selectable is registered are reported."""
        selectable = self.selectable()
        self.poller.addReader(selectable)
        self.poller.doRead()
        self.assertEqual(selectable.calls, [])
        selectable.peer.send(b"x")
        self.poller.addWriter(selectable)
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "write"])
        self.poller.removeReader(selectable)
        self.poller.doRead()
        self.assertEqual(selectable.calls[2:], ["write"])

    def test_eof_closes_input_only(self) -> None:
        """A FIN calls `readConnectionLost`, and the reader is removed."""
        selectable = self.selectable()
        self.poller.addReader(selectable)
        selectable.peer.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "read lost"])
        self.assertEqual(self.poller.getReaders(), [])

    def test_error_while_reading(self) -> None:
        """An error of `doRead` closes the connection, without a write after it."""
        selectable = self.selectable()
        selectable.outcome = CONNECTION_LOST
        self.poller.addReader(selectable)
        self.poller.addWriter(selectable)
        selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "lost: ConnectionLost"])
        self.assertEqual(self.reactor.readers, [])

    def test_hang_up_while_only_writing(self) -> None:
        """A hang-up of a writer is reported as `ConnectionLost`."""
        selectable = self.selectable()
        self.poller.addWriter(selectable)
        selectable.peer.close()
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["lost: ConnectionLost"])

    def test_exception_is_logged_and_closes_only_that_connection(self) -> None:
        """An exception of `doRead` is logged; other events of the batch are handled."""
        bad, good = self.selectable(), self.selectable()

        def fail() -> None:
            raise ZeroDivisionError

        bad.on_read = fail
        for selectable in (bad, good):
            self.poller.addReader(selectable)
            selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(bad.calls, ["read", "lost: ZeroDivisionError"])
        self.assertEqual(good.calls, ["read"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_exception_of_deferred_work_closes_only_that_connection(self) -> None:
        """Exceptions after the batch are logged; the other connections are served."""
        for method in ("shutdown_write", "connectionLost"):
            bad, good = FakeTransport(), FakeTransport()
            failures = {"shutdown_write": bad.fail_on_shutdown, "connectionLost": bad.fail_on_close}
            for selectable in (bad, good):
                self.addCleanup(selectable.close)
                self.poller.addReader(selectable)
            failures[method].append(ZeroDivisionError())

            def defer(first: FakeTransport = bad, second: FakeTransport = good) -> None:
                first.socket.recv(100)
                for transport in (first, second):
                    self.poller.defer_disconnect(transport)
                    self.poller.defer_shutdown(transport)

            def defer_shutdown(first: FakeTransport = bad, second: FakeTransport = good) -> None:
                first.socket.recv(100)
                for transport in (first, second):
                    self.poller.defer_shutdown(transport)

            bad.on_read = defer_shutdown if method == "shutdown_write" else defer
            bad.peer.send(b"x")
            self.poller.doRead()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            if method == "shutdown_write":
                self.assertEqual(bad.calls, ["read", "shutdown", "lost: ZeroDivisionError"])
                self.assertEqual(good.calls, ["shutdown"])
            else:
                self.assertEqual(good.calls, ["lost: ConnectionDone", "shutdown"])
            # The next batch is handled as usual.
            reader = self.selectable()
            self.poller.addReader(reader)
            reader.peer.send(b"x")
            self.poller.doRead()
            self.assertEqual(reader.calls, ["read"])
            self.poller.removeAll()

    def test_exception_at_reactor_shutdown(self) -> None:
        """If one connection fails to close, the others are closed all the same."""
        bad, good = FakeTransport(), FakeTransport()
        bad.fail_on_close.append(ZeroDivisionError())
        for selectable in (bad, good):
            self.addCleanup(selectable.close)
            self.poller.addReader(selectable)
        self.poller.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(good.calls, ["lost: ConnectionLost"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_selectable_removed_within_a_batch_gets_no_event(self) -> None:
        """An event is dropped if its selectable was closed earlier in the batch."""
        first, second = self.selectable(), self.selectable()
        reused = self.selectable()
        opposite = {first: second, second: first}

        def close_opposite(selectable: FakeSelectable) -> None:
            closed = opposite[selectable]
            number = closed.fileno()
            self.poller.removeReader(closed)
            closed.socket.close()
            # The kernel gives the number to the next descriptor.
            reused.socket.close()
            replacement, reused.peer = socket.socketpair()
            reused.socket = replacement
            if replacement.fileno() == number:
                self.poller.addReader(reused)

        for selectable in (first, second):
            selectable.on_read = lambda selectable=selectable: close_opposite(selectable)
            self.poller.addReader(selectable)
            selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(len(first.calls) + len(second.calls), 1)
        self.assertEqual(reused.calls, [])

    def test_poll_first(self) -> None:
        """Selectables with `poll_first` are handled before the others of a batch."""
        order: list[FakeSelectable] = []
        selectables = [self.selectable() for _ in range(6)]
        for number, selectable in enumerate(selectables):
            selectable.poll_first = number % 2 == 1
            selectable.on_read = lambda selectable=selectable: order.append(selectable)
            self.poller.addReader(selectable)
            selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual([selectable.poll_first for selectable in order], [True] * 3 + [False] * 3)

    def test_batch_is_bounded(self) -> None:
        """A batch has at most `MAX_EVENTS` events; the others follow in the next."""
        selectables = [self.selectable() for _ in range(MAX_EVENTS + 10)]
        for selectable in selectables:
            self.poller.addReader(selectable)
            selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(sum(len(selectable.calls) for selectable in selectables), MAX_EVENTS)
        self.poller.doRead()
        self.assertEqual(sum(len(selectable.calls) for selectable in selectables), MAX_EVENTS + 10)

    def test_reset_while_paused(self) -> None:
        """A reset of a paused connection is reported once, unread data is not."""
        reset, open_ = self.tcp_selectable(), self.tcp_selectable()
        for paused in (reset, open_):
            self.poller.addReader(paused)
            paused.peer.send(b"x")
            self.poller.pause_reader(paused)
        self.poller.doRead()
        self.assertEqual(self.poller.getReaders(), [])
        self.assertEqual((reset.calls, open_.calls), ([], []))
        reset.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.peer.close()
        self.poller.doRead()
        self.assertEqual((reset.calls, open_.calls), (["lost: ConnectionLost"], []))
        self.poller.removeReader(open_)
        self.assertEqual(self.reactor.readers, [])

    def test_clean_close_while_paused(self) -> None:
        """Data and FIN received while paused are read after reading has resumed."""
        selectable = self.tcp_selectable()
        self.poller.addReader(selectable)
        self.poller.pause_reader(selectable)
        selectable.socket.shutdown(socket.SHUT_WR)
        selectable.peer.send(b"x")
        selectable.peer.close()
        for _ in range(3):
            self.poller.doRead()
        self.assertEqual(selectable.calls, [])
        self.poller.addReader(selectable)
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "read", "read lost"])

    def test_clean_close_of_reader_resumed_within_the_batch(self) -> None:
        """A hang-up event fetched while paused is not mistaken for a reset."""
        selectable, server = self.tcp_selectable(), self.selectable()
        server.poll_first = True
        server.on_read = lambda: self.poller.addReader(selectable)
        for reader in (selectable, server):
            self.poller.addReader(reader)
        self.poller.pause_reader(selectable)
        selectable.socket.shutdown(socket.SHUT_WR)
        selectable.peer.send(b"x")
        selectable.peer.close()
        server.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual((selectable.calls, server.calls), ([], ["read"]))
        server.on_read = None
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "read", "read lost"])

    def test_pausing_and_writing(self) -> None:
        """A paused selectable can write, and can be removed as reader and as writer."""
        selectable = self.selectable()
        self.poller.addReader(selectable)
        self.poller.addWriter(selectable)
        self.poller.pause_reader(selectable)
        selectable.peer.send(b"x")
        self.poller.doRead()
        self.poller.removeWriter(selectable)
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["write"])
        self.poller.addWriter(selectable)
        self.poller.doRead()
        self.poller.removeReader(selectable)
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["write"] * 3)
        self.poller.removeWriter(selectable)
        self.assertEqual(self.reactor.readers, [])

    def test_eof_in_the_batch_of_the_last_bytes(self) -> None:
        """A FIN that arrived with data is handled in the same batch."""
        selectable = self.tcp_selectable()
        self.poller.addReader(selectable)
        selectable.peer.send(b"x")
        selectable.peer.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "read", "read lost"])

    def test_eof_of_reader_that_pauses_at_the_last_bytes(self) -> None:
        """A FIN is not handled while the reader is paused."""
        selectable = self.tcp_selectable()

        def pause() -> None:
            selectable.socket.recv(100)
            self.poller.pause_reader(selectable)

        selectable.on_read = pause
        self.poller.addReader(selectable)
        selectable.peer.send(b"x")
        selectable.peer.shutdown(socket.SHUT_WR)
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual(selectable.calls, ["read"])
        selectable.on_read = None
        self.poller.addReader(selectable)
        self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "read", "read lost"])

    def test_last_bytes_are_announced(self) -> None:
        """`read_before_eof` is called instead of `doRead` if a FIN is known to follow."""
        selectable: Any = self.tcp_selectable()
        selectable.read_before_eof = lambda: selectable.calls.append("last")
        self.poller.addReader(selectable)
        selectable.peer.send(b"x")
        self.poller.doRead()
        selectable.peer.send(b"x")
        selectable.peer.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.assertEqual(selectable.calls[:2], ["read", "last"])

    def test_reader_removed_and_added_within_a_batch(self) -> None:
        """A selectable that is removed and added again keeps its registration."""
        selectable, another = self.selectable(), self.selectable()

        def remove_and_add() -> None:
            selectable.socket.recv(100)
            self.poller.removeReader(selectable)
            self.poller.addReader(selectable)

        selectable.on_read = remove_and_add
        for reader in (selectable, another):
            self.poller.addReader(reader)
        for _ in range(2):
            selectable.peer.send(b"x")
            self.poller.doRead()
        self.assertEqual(selectable.calls, ["read", "read"])

    def test_reader_removed_without_being_closed(self) -> None:
        """A descriptor that stays open is unregistered from epoll after the batch."""
        selectable, another = self.selectable(), self.selectable()
        selectable.on_read = lambda: self.poller.removeReader(selectable)
        for reader in (selectable, another):
            self.poller.addReader(reader)
        selectable.peer.send(b"x")
        self.poller.doRead()
        with select.epoll.fromfd(os.dup(self.poller.fileno())) as epoll:
            self.assertEqual(epoll.poll(0), [])

    def test_descriptor_number_reused_within_a_batch(self) -> None:
        """A number that is closed and reused in one batch is registered for its new owner."""
        selectable, another = self.selectable(), self.selectable()
        reused = self.selectable()
        numbers: list[int] = []

        def replace() -> None:
            number = selectable.fileno()
            self.poller.removeReader(selectable)
            os.dup2(reused.fileno(), number)
            reused.socket.close()
            reused.socket = socket.socket(fileno=selectable.socket.detach())
            numbers.extend((number, reused.fileno()))
            self.poller.addReader(reused)

        selectable.on_read = replace
        for reader in (selectable, another):
            self.poller.addReader(reader)
        selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(numbers[0], numbers[1])
        reused.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual((selectable.calls, reused.calls), (["read"], ["read"]))

    def test_reactor_shutdown_closes_all_connections(self) -> None:
        """When the reactor stops, every selectable gets `connectionLost`."""
        selectable = self.selectable()
        self.poller.addReader(selectable)
        self.poller.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(selectable.calls, ["lost: ConnectionLost"])
        self.assertEqual(self.reactor.readers, [])

    def test_time(self) -> None:
        """Timers and the time are the reactor's."""
        calls: list[int] = []
        self.poller.callLater(1, calls.append, 1)
        self.reactor.advance(1)
        self.assertEqual(calls, [1])
        self.assertEqual(self.poller.seconds(), 1.0)
