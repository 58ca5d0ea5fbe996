"""The upstream HTTP/1.1 connection, apart from its protocol, which functional tests cover."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.http1.response_head import ResponseHeadParser
from balancebeam.upstream.connection_state import UpstreamState
from balancebeam.upstream.http1_connection import UpstreamConnection
from balancebeam.upstream.server import Server


class NoPool:
    """A pool that ignores its connections."""

    def release(self, connection: UpstreamConnection) -> None:
        """Ignore an idle connection."""

    def connection_closed(self, connection: UpstreamConnection) -> None:
        """Ignore a closed connection."""


class ReprTests(SynchronousTestCase):
    """The representation of a connection is readable in logs and debuggers."""

    def test_repr_names_the_state(self) -> None:
        """The representation contains the server and the name of the state."""
        server = Server(ServerSettings(TcpAddress("192.0.2.7", 80)))
        parser, ticker = ResponseHeadParser(), Ticker(Clock())
        connection = UpstreamConnection(server, NoPool(), parser, ticker)
        self.assertEqual(repr(connection), "<UpstreamConnection to 192.0.2.7:80 IDLE>")
        connection.state = UpstreamState.READING_BODY
        self.assertIn("READING_BODY", repr(connection))
