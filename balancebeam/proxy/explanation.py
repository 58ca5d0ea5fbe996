"""
Explanations: what would happen to a request, without any of it happening.

The functions here follow `Dispatcher.dispatch` and `Dispatcher._try_next`; a property test
holds them against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from balancebeam.balancing.interfaces import Selection
from balancebeam.core.ip import pack_address
from balancebeam.core.settings import AdminState
from balancebeam.proxy.queue import RequestQueue
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet


@frozen
class ExplainedRequest:
    """
    A request that is not sent: it has no body, and no field but Host.

    Attributes:
        client: The client's IP address as text.
        method: The method; empty for a TCP connection.
        host: The value of Host; `None` for a TCP connection.
        target: The request target; empty for a TCP connection.
    """

    client: str
    method: bytes = b""
    host: bytes | None = None
    target: bytes = b""

    @property
    def client_key(self) -> bytes:
        """The client's address in 4 or 16 bytes."""
        return pack_address(self.client)

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`: none."""
        return []


@frozen
class Explanation:
    """
    What a handler would do with an admitted request.

    Attributes:
        candidates: The servers, the first to be tried first, each with its reason; then the
            servers that are no candidates, with the reason why.
        status: The status of the handler's own response; `None` if the request would be
            forwarded or queued.
    """

    candidates: tuple[Selection[Server], ...] = ()
    status: int | None = None


def explain_dispatch(selector: SelectorService, queue: RequestQueue, client: str) -> Explanation:
    """
    Explain which server would get an admitted request of `client`.

    A queue is explained as in order. If its head is a retry, which excludes servers, a request
    may in fact overtake it at once, to one of these servers.

    Args:
        selector: The servers of the pool.
        queue: The queue of the pool.
        client: The client's IP address as text.
    """
    selections = selector.explain(client)
    others = tuple(_not_candidates(selector.server_set))
    full = len(queue) >= queue.settings.limit
    if len(queue):
        state = "queue full" if full else f"request queued behind {len(queue)}"
        waiting = tuple(_saturated(selections, f"{state}: "))
        return Explanation(waiting + others, 503 if full else None)
    position = _first_free(selections)
    if position is not None:
        # A retry tries the saturated servers again, before the ones not tried yet.
        skipped = tuple(_saturated(selections[:position]))
        rest = tuple(_saturated(selections[position + 1 :]))
        return Explanation((selections[position], *skipped, *rest, *others))
    if not selections:
        return Explanation(others, 503)
    waiting = tuple(_saturated(selections, "queue full: " if full else "request queued: "))
    return Explanation(waiting + others, 503 if full else None)


def _first_free(selections: Sequence[Selection[Server]]) -> int | None:
    """The position of the server that gets the request; `None` if it is queued or fails."""
    saturated: list[Server] = []
    for position, (server, _) in enumerate(selections):
        if server.in_flight >= server.max_in_flight:
            saturated.append(server)
        elif saturated and saturated[0].available and not server.available:
            # An ejected server is not tried in the place of a saturated available one.
            return None
        else:
            return position
    return None


def _saturated(
    selections: Sequence[Selection[Server]], prefix: str = ""
) -> Iterator[Selection[Server]]:
    """Add `prefix` to the reasons, and whether the server is saturated."""
    for server, reason in selections:
        saturated = server.in_flight >= server.max_in_flight
        state = f"at max_in_flight ({server.max_in_flight}): " if saturated else ""
        yield server, f"{prefix}{state}{reason}"


def _not_candidates(server_set: ServerSet) -> Iterator[Selection[Server]]:
    """The servers that get no new requests, with the reason."""
    for server in (*server_set.servers, *server_set.draining):
        if not server.eligible:
            yield server, f"not a candidate: {_exclusion_reason(server)}"


def _exclusion_reason(server: Server) -> str:
    """Why a server that is not eligible is no candidate."""
    if server.removed:
        return "removed, draining"
    if server.admin_state is AdminState.MAINTENANCE:
        return "in maintenance"
    if server.admin_state is AdminState.DRAIN:
        return "draining"
    if not server.weight:
        return "weight 0"
    return f"down: {server.status_reason}" if server.status_reason else "down"
