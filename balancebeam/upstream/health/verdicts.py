"""What a health check is, and how the status of a response is judged."""

from __future__ import annotations

import typing
from http import HTTPStatus
from typing import Callable, Optional

from balancebeam.core.addresses import UnixAddress
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server

# Returns TLS for a connection to a server; `None` for a connection without TLS.
FindTls = Callable[[Server], Optional[ServerTls]]

# Characters of a Location field in a message: enough for the path of a login page.
_MAX_LOCATION = 200


class Unhealthy(Exception):
    """
    The server responded, but not with a status that counts as healthy.

    Attributes:
        detail: The complete request and response, for the first failure; empty if it adds
            nothing to the text.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


class Probe(typing.Protocol):
    """Checks one server."""

    async def check(self, server: Server) -> str:
        """
        Check `server`.

        Returns:
            What was seen of a healthy server, as text for logs.

        Raises:
            Unhealthy: Its response has the wrong status.
            Exception: Whatever prevented a response.
        """


def host_of(server: Server) -> str:
    """Return the value for Host in checks of `server`."""
    return "localhost" if isinstance(server.address, UnixAddress) else server.name


def judge_status(
    path: str, host: str, code: int, statuses: tuple[int, int], location: str | None
) -> str:
    """
    Return what was seen of a server that has responded with `code`.

    Args:
        path: The target of the request.
        host: The value of Host.
        code: The status.
        statuses: The first and last status of a healthy server.
        location: The value of Location; `None` without it.

    Raises:
        Unhealthy: It is another status.
    """
    seen = f"GET {path} was answered with {code}"
    first, last = statuses
    if first <= code <= last:
        return seen
    phrase = f" {HTTPStatus(code).phrase}" if code in list(HTTPStatus) else ""
    target = "" if location is None else f" (Location: {location[:_MAX_LOCATION]!a})"
    raise Unhealthy(
        seen,
        f"GET {path} with Host {host} was answered with {code}{phrase}{target}: "
        f"expected a status from {first} to {last}",
    )
