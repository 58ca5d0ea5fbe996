"""
Private names of Twisted that this package reads, sets, calls or overrides.

Twisted gives no promise for names with a leading underscore. All that are used are
listed here, so that `tests/unit/net/test_twisted_private.py` reports, in one place, which
of them a new version of Twisted has changed.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class PrivateName:
    """
    One private name of Twisted.

    Attributes:
        owner: the class, by its full name. As text: not each process imports twisted.web.
        name: the attribute of the class.
        kind: "attribute", "method" or "classmethod".
        value: the repr of its default, for attributes of which the default matters.
        use: what it is used for, and where.
    """

    owner: str
    name: str
    kind: str
    use: str
    value: str = ""


PRIVATE_NAMES = (
    PrivateName(
        "twisted.internet.abstract.FileDescriptor",
        "_writeDisconnecting",
        "attribute",
        "set by `DirectWriteMixin.loseWriteConnection`: a half-close is pending",
        "False",
    ),
    PrivateName(
        "twisted.internet.abstract.FileDescriptor",
        "_writeDisconnected",
        "attribute",
        "set by `DirectWriteMixin.loseWriteConnection`: output is closed, `write` drops data",
        "False",
    ),
    PrivateName(
        "twisted.internet.tcp.Connection",
        "_aborting",
        "attribute",
        "read by reactors and `DirectWriteMixin`: `abortConnection` was called",
        "False",
    ),
    PrivateName(
        "twisted.internet.tcp.Connection",
        "_shouldShutdown",
        "attribute",
        "cleared by `DirectWriteMixin`: no shutdown(2) before close(2)",
        "True",
    ),
    PrivateName(
        "twisted.internet.tcp.Connection",
        "_closeSocket",
        "method",
        "overridden by `DirectWriteMixin`: the reactor forgets the descriptor",
    ),
    PrivateName(
        "twisted.internet.tcp.Connection",
        "_closeWriteConnection",
        "method",
        "called by `DirectWriteMixin.shutdown_write`: shutdown(2) and `writeConnectionLost`",
    ),
    PrivateName(
        "twisted.internet.tcp.Server",
        "_addressType",
        "attribute",
        "set by `TcpServerTransport` for IPv6 clients, for `getHost` and `getPeer`",
    ),
    PrivateName(
        "twisted.internet.tcp.Port",
        "_shouldShutdown",
        "attribute",
        "cleared by listening ports: a new process may use the socket",
        "True",
    ),
    PrivateName(
        "twisted.internet.tcp.Port",
        "_buildAddr",
        "method",
        "called by `ImmediateCloseMixin`: the address object of a client",
    ),
    PrivateName(
        "twisted.internet.tcp.Port",
        "_fromListeningDescriptor",
        "classmethod",
        "called by `adopt_listening_socket`: a port with an existing socket",
    ),
    PrivateName(
        "twisted.internet.unix.Connector",
        "_makeTransport",
        "method",
        "overridden by `UnixConnector`: makes a `UnixClientTransport`",
    ),
    PrivateName(
        "twisted.web.http.HTTPChannel",
        "_respondToBadRequestAndDisconnect",
        "method",
        "overridden by the channel of the admin API: a JSON error with status 400",
    ),
)
