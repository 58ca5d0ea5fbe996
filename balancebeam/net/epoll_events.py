"""Events of epoll(7), and how the unusual combinations of them are handled."""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.main import CONNECTION_LOST

# PyPy has no name for it.
EPOLLRDHUP = getattr(select, "EPOLLRDHUP", 0x2000)

# Events of readers. EPOLLRDHUP reports a FIN together with the last bytes before
# it, which saves an iteration, and lets a relay send both in one segment.
READ_EVENTS = select.EPOLLIN | EPOLLRDHUP if hasattr(select, "epoll") else 0

HANGUP_EVENTS = select.EPOLLHUP | select.EPOLLERR if hasattr(select, "epoll") else 0


def dispatch_event(selectable: Any, event: int) -> tuple[Any, bool]:
    """
    Handle a combination of epoll events.

    Returns:
        The reason if the connection has ended, else `None`; and whether it was
        found by reading.
    """
    if event & HANGUP_EVENTS and not event & select.EPOLLIN:
        # A clean close would be readable, as EOF.
        return CONNECTION_LOST, False
    reason = None
    if event & select.EPOLLIN:
        reason = selectable.doRead()
        if reason is not None:
            return reason, True
    if event & select.EPOLLOUT and selectable.fileno() != -1:
        reason = selectable.doWrite()
    return reason, False
