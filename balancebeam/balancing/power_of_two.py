"""The less loaded of two."""

from __future__ import annotations

from collections.abc import Iterator

from balancebeam.balancing.interfaces import C, Choice
from balancebeam.balancing.weighted_random import DRAWN, RandomChoice

LESS = "the less loaded of two"
MORE = "the more loaded of two"


class PowerOfTwo(RandomChoice[C]):
    """
    Two servers at random, in proportion to their shares, and of these the one
    with fewer requests in flight for its share.

    M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
    IEEE TPDS 12 (2001).
    """

    def order(self, client: str) -> Iterator[Choice[C]]:
        urn = self._urn
        if len(urn) < 2:
            if len(urn):
                yield urn[0], LESS
            return
        number = urn.draw()
        first, second = urn[number], urn[urn.draw_another(number)]
        if second.in_flight * first.share < first.in_flight * second.share:
            first, second = second, first
        yield first, LESS
        yield second, MORE
        for server in urn.rest((first, second)):
            yield server, DRAWN
