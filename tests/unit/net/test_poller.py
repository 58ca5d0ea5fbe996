"""The batch poller, on a real epoll and real sockets, without a reactor running."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from balancebeam.net.poller import MAX_EVENTS, BatchPoller, build_data_reactor


class FakeReactor(Clock):
    """Knows who registered."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Selectable:
    """One end of a socket pair, which notes what it is called for."""

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


class BatchPollerTests(SynchronousTestCase):
    """What reaches selectables, and what is left behind."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.poller = BatchPoller(self.reactor)
        self.addCleanup(self.check_clean)

    def check_clean(self) -> None:
        self.poller.removeAll()
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.poller.fileno(), -1)

    def selectable(self) -> Selectable:
        selectable = Selectable()
        self.addCleanup(selectable.close)
        return selectable

    def test_interfaces(self) -> None:
        verifyObject(IReactorFDSet, self.poller)
        verifyObject(IReadDescriptor, self.poller)

    def test_platform_without_epoll(self) -> None:
        self.assertIsInstance(build_data_reactor(self.reactor), BatchPoller)
        self.patch(select, "epoll", None)
        del select.epoll
        self.assertIs(build_data_reactor(self.reactor), self.reactor)

    def test_registered_only_while_needed(self) -> None:
        one, two = self.selectable(), self.selectable()
        self.poller.addReader(one)
        self.poller.addWriter(two)
        self.assertEqual(self.reactor.readers, [self.poller])
        self.assertEqual(self.poller.getReaders(), [one])
        self.assertEqual(self.poller.getWriters(), [two])
        self.poller.removeReader(one)
        self.poller.removeWriter(one)
        self.poller.removeWriter(two)
        self.assertEqual(self.reactor.readers, [])

    def test_reading_and_writing(self) -> None:
        one = self.selectable()
        self.poller.addReader(one)
        self.poller.doRead()
        self.assertEqual(one.calls, [])
        one.peer.send(b"x")
        self.poller.addWriter(one)
        self.poller.doRead()
        self.assertEqual(one.calls, ["read", "write"])
        self.poller.removeReader(one)
        self.poller.doRead()
        self.assertEqual(one.calls[2:], ["write"])

    def test_end_of_input_is_half_an_end(self) -> None:
        one = self.selectable()
        self.poller.addReader(one)
        one.peer.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.assertEqual(one.calls, ["read", "read lost"])
        self.assertEqual(self.poller.getReaders(), [])

    def test_error_while_reading(self) -> None:
        one = self.selectable()
        one.outcome = CONNECTION_LOST
        self.poller.addReader(one)
        self.poller.addWriter(one)
        one.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(one.calls, ["read", "lost: ConnectionLost"])
        self.assertEqual(self.reactor.readers, [])

    def test_hang_up_while_only_writing(self) -> None:
        one = self.selectable()
        self.poller.addWriter(one)
        one.peer.close()
        self.poller.doRead()
        self.assertEqual(one.calls, ["lost: ConnectionLost"])

    def test_exception_is_logged_and_ends_only_that_connection(self) -> None:
        bad, good = self.selectable(), self.selectable()

        def fail() -> None:
            raise ZeroDivisionError

        bad.on_read = fail
        for one in (bad, good):
            self.poller.addReader(one)
            one.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(bad.calls, ["read", "lost: ZeroDivisionError"])
        self.assertEqual(good.calls, ["read"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_who_goes_in_the_middle_of_a_batch_gets_no_event(self) -> None:
        one, two = self.selectable(), self.selectable()
        three = self.selectable()
        others = {one: two, two: one}

        def close_the_other(mine: Selectable) -> None:
            other = others[mine]
            number = other.fileno()
            self.poller.removeReader(other)
            other.socket.close()
            # The kernel gives the number to the next one who asks.
            three.socket.close()
            replacement, three.peer = socket.socketpair()
            three.socket = replacement
            if replacement.fileno() == number:
                self.poller.addReader(three)

        for selectable in (one, two):
            selectable.on_read = lambda mine=selectable: close_the_other(mine)
            self.poller.addReader(selectable)
            selectable.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(len(one.calls) + len(two.calls), 1)
        self.assertEqual(three.calls, [])

    def test_who_is_to_be_served_first(self) -> None:
        order: list[Selectable] = []
        many = [self.selectable() for _ in range(6)]
        for number, one in enumerate(many):
            one.poll_first = number % 2 == 1
            one.on_read = lambda mine=one: order.append(mine)
            self.poller.addReader(one)
            one.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual([one.poll_first for one in order], [True] * 3 + [False] * 3)

    def test_a_batch_is_bounded(self) -> None:
        many = [self.selectable() for _ in range(MAX_EVENTS + 10)]
        for one in many:
            self.poller.addReader(one)
            one.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(sum(len(one.calls) for one in many), MAX_EVENTS)
        self.poller.doRead()
        self.assertEqual(sum(len(one.calls) for one in many), MAX_EVENTS + 10)

    def tcp_selectable(self) -> Selectable:
        one = self.selectable()
        one.close()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one.peer = socket.create_connection(listener.getsockname())
            one.socket, _ = listener.accept()
        one.socket.setblocking(False)
        return one

    def test_reset_of_who_is_not_read_for_now(self) -> None:
        one, other = self.tcp_selectable(), self.tcp_selectable()
        for paused in (one, other):
            self.poller.addReader(paused)
            paused.peer.send(b"x")
            self.poller.pause_reader(paused)
        self.poller.doRead()
        self.assertEqual(self.poller.getReaders(), [])
        self.assertEqual((one.calls, other.calls), ([], []))
        one.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.peer.close()
        self.poller.doRead()
        self.assertEqual((one.calls, other.calls), (["lost: ConnectionLost"], []))
        self.poller.removeReader(other)
        self.assertEqual(self.reactor.readers, [])

    def test_a_regular_end_of_who_is_not_read_for_now(self) -> None:
        one = self.tcp_selectable()
        self.poller.addReader(one)
        self.poller.pause_reader(one)
        one.socket.shutdown(socket.SHUT_WR)
        one.peer.send(b"x")
        one.peer.close()
        for _ in range(3):
            self.poller.doRead()
        self.assertEqual(one.calls, [])
        self.poller.addReader(one)
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual(one.calls, ["read", "read", "read lost"])

    def test_a_regular_end_of_who_is_read_again_in_the_same_batch(self) -> None:
        one, other = self.tcp_selectable(), self.selectable()
        other.poll_first = True
        other.on_read = lambda: self.poller.addReader(one)
        for each in (one, other):
            self.poller.addReader(each)
        self.poller.pause_reader(one)
        one.socket.shutdown(socket.SHUT_WR)
        one.peer.send(b"x")
        one.peer.close()
        other.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual((one.calls, other.calls), ([], ["read"]))
        other.on_read = None
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual(one.calls, ["read", "read", "read lost"])

    def test_pausing_and_writing(self) -> None:
        one = self.selectable()
        self.poller.addReader(one)
        self.poller.addWriter(one)
        self.poller.pause_reader(one)
        one.peer.send(b"x")
        self.poller.doRead()
        self.poller.removeWriter(one)
        self.poller.doRead()
        self.assertEqual(one.calls, ["write"])
        self.poller.addWriter(one)
        self.poller.doRead()
        self.poller.removeReader(one)
        self.poller.doRead()
        self.assertEqual(one.calls, ["write"] * 3)
        self.poller.removeWriter(one)
        self.assertEqual(self.reactor.readers, [])

    def test_an_end_comes_with_the_last_bytes(self) -> None:
        one = self.tcp_selectable()
        self.poller.addReader(one)
        one.peer.send(b"x")
        one.peer.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.assertEqual(one.calls, ["read", "read", "read lost"])

    def test_an_end_waits_for_who_pauses_at_the_last_bytes(self) -> None:
        one = self.tcp_selectable()

        def pause() -> None:
            one.socket.recv(100)
            self.poller.pause_reader(one)

        one.on_read = pause
        self.poller.addReader(one)
        one.peer.send(b"x")
        one.peer.shutdown(socket.SHUT_WR)
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual(one.calls, ["read"])
        one.on_read = None
        self.poller.addReader(one)
        self.poller.doRead()
        self.assertEqual(one.calls, ["read", "read", "read lost"])

    def test_who_cares_is_told_that_bytes_are_the_last(self) -> None:
        one: Any = self.tcp_selectable()
        one.read_before_eof = lambda: one.calls.append("last")
        self.poller.addReader(one)
        one.peer.send(b"x")
        self.poller.doRead()
        one.peer.send(b"x")
        one.peer.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.assertEqual(one.calls[:2], ["read", "last"])

    def test_who_is_not_watched_any_more_and_then_is(self) -> None:
        one, other = self.selectable(), self.selectable()

        def there_and_back() -> None:
            one.socket.recv(100)
            self.poller.removeReader(one)
            self.poller.addReader(one)

        one.on_read = there_and_back
        for each in (one, other):
            self.poller.addReader(each)
        for _ in range(2):
            one.peer.send(b"x")
            self.poller.doRead()
        self.assertEqual(one.calls, ["read", "read"])

    def test_who_goes_without_closing_is_not_watched_any_more(self) -> None:
        one, other = self.selectable(), self.selectable()
        one.on_read = lambda: self.poller.removeReader(one)
        for each in (one, other):
            self.poller.addReader(each)
        one.peer.send(b"x")
        self.poller.doRead()
        with select.epoll.fromfd(os.dup(self.poller.fileno())) as watching:
            self.assertEqual(watching.poll(0), [])

    def test_a_number_that_is_closed_and_given_again_in_one_batch(self) -> None:
        one, other = self.selectable(), self.selectable()
        third = self.selectable()
        numbers: list[int] = []

        def replace() -> None:
            number = one.fileno()
            self.poller.removeReader(one)
            os.dup2(third.fileno(), number)
            third.socket.close()
            third.socket = socket.socket(fileno=one.socket.detach())
            numbers.extend((number, third.fileno()))
            self.poller.addReader(third)

        one.on_read = replace
        for each in (one, other):
            self.poller.addReader(each)
        one.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual(numbers[0], numbers[1])
        third.peer.send(b"x")
        self.poller.doRead()
        self.assertEqual((one.calls, third.calls), (["read"], ["read"]))

    def test_shutdown_disconnects_everybody(self) -> None:
        one = self.selectable()
        self.poller.addReader(one)
        self.poller.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual(one.calls, ["lost: ConnectionLost"])
        self.assertEqual(self.reactor.readers, [])

    def test_time(self) -> None:
        calls: list[int] = []
        self.poller.callLater(1, calls.append, 1)
        self.reactor.advance(1)
        self.assertEqual(calls, [1])
        self.assertEqual(self.poller.seconds(), 1.0)
