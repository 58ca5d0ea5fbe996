"""
Long texts, made in slices: a balancer of hundreds of servers has a megabyte of metrics.

While a text is made no request is processed. So each turn of the event loop makes one slice of
one text, of a limited duration, and requests are processed between two slices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

# Seconds of a slice, which requests wait longer. Much shorter ones would cost more turns of the
# event loop, of some 20 us each.
SLICE = 0.0005


class _Text:
    """A text in progress; `result` receives all of its bytes."""

    def __init__(self, pieces: Iterator[str], result: Deferred[list[bytes]]) -> None:
        self.result = result
        self._pieces = pieces
        self._made: list[bytes] = []

    def advance(self, clock: Any, seconds: float) -> bool:
        """Make pieces for `seconds`, at least one; return whether the text is complete."""
        slice_end = clock.seconds() + seconds
        made: list[str] = []
        complete = True
        for piece in self._pieces:
            made.append(piece)
            if clock.seconds() >= slice_end:
                complete = False
                break
        self._made.append("".join(made).encode())
        return complete

    def finish(self) -> None:
        """Pass the text on."""
        self.result.callback(self._made)


class Slices:
    """
    Makes texts in slices, one slice per turn of the event loop, of all texts in turns.

    Attributes:
        texts: The texts in progress.
    """

    def __init__(self, clock: Any) -> None:
        """
        Args:
            clock: The reactor.
        """
        self.texts: deque[_Text] = deque()
        self._clock = clock
        self._turn: IDelayedCall | None = None

    def make(self, pieces: Iterator[str]) -> Deferred[list[bytes]]:
        """
        Join `pieces`.

        The first slice is made at once unless other texts are in progress, so that a short text
        needs no further turn.

        Args:
            pieces: Makes the text; an iteration takes a fraction of a slice.

        Returns:
            The encoded text in parts. It can be cancelled. It fails if `pieces` raises an
            exception.
        """
        result: Deferred[list[bytes]] = Deferred(lambda _: self._drop(text))
        text = _Text(pieces, result)
        self.texts.append(text)
        if self._turn is None:
            self._advance()
        return result

    def stop(self) -> None:
        """Complete all texts at once, so that each response is sent before its connection ends."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        while self.texts:
            self._advance_first(float("inf"))

    def _advance(self) -> None:
        self._turn = None
        self._advance_first(SLICE)
        # The end of a text may have started another one.
        if self.texts and self._turn is None:
            self._turn = self._clock.callLater(0, self._advance)

    def _advance_first(self, seconds: float) -> None:
        text = self.texts.popleft()
        try:
            complete = text.advance(self._clock, seconds)
        except Exception:
            text.result.errback()
            return
        if complete:
            text.finish()
        else:
            self.texts.append(text)

    def _drop(self, text: _Text) -> None:
        if text in self.texts:
            self.texts.remove(text)
        if not self.texts and self._turn is not None:
            self._turn.cancel()
            self._turn = None
