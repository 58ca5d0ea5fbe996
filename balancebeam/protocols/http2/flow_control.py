"""Flow-control windows (RFC 9113, 5.2 and 6.9)."""

from __future__ import annotations

from balancebeam.protocols.http2.frames import DEFAULT_WINDOW_SIZE, MAX_WINDOW_SIZE

# Bytes of received content after which a window is opened again: half of the initial window, so
# that the sender does not stand still, and that small frames do not cost an update each.
UPDATE_THRESHOLD = (DEFAULT_WINDOW_SIZE + 1) // 2


def widen(window: int, increment: int) -> int | None:
    """
    Return a send window after an increment, which may be negative.

    RFC 9113, 6.9.2: "A change to SETTINGS_INITIAL_WINDOW_SIZE can cause the available space in a
    flow-control window to become negative."

    Args:
        window: Bytes that may be sent.
        increment: The increment of a WINDOW_UPDATE, or the change of the initial window.

    Returns:
        The new window, or `None` if it exceeds 2^31-1, which is a FLOW_CONTROL_ERROR.
    """
    window += increment
    return None if window > MAX_WINDOW_SIZE else window
