"""Timestamps of log lines."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Callable

# Returns seconds since the epoch.
Clock = Callable[[], float]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=2)
def local_time(second: int) -> str:
    """Format `second` since the epoch in local time, as in 10/Oct/2000:13:55:36 -0700."""
    local = time.localtime(second)
    minutes = local.tm_gmtoff // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return (
        f"{local.tm_mday:02}/{_MONTHS[local.tm_mon - 1]}/{local.tm_year:04}:"
        f"{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} "
        f"{sign}{minutes // 60:02}{minutes % 60:02}"
    )


class LineTime:
    """
    The time of log lines, for formatters that have no time to read the clock for each line.

    Args:
        clock: Returns seconds since the epoch.
        render: Returns the text of a number of units since the epoch.
        units: Units per second.

    Attributes:
        text: The text of the last time.
        expires_at: Until when a line has this text, on the clock of timelines: for less than a
            millisecond, by which times are rounded down anyway.
    """

    __slots__ = ("_clock", "_render", "_units", "expires_at", "text")

    def __init__(self, clock: Clock, render: Callable[[int], str], units: int) -> None:
        self.text = ""
        self.expires_at = float("-inf")
        self._clock = clock
        self._render = render
        self._units = units

    def __call__(self, finished_at: float) -> str:
        """Return the present time, for the line of an exchange that has just finished."""
        self.expires_at = finished_at + _MAX_AGE
        self.text = self._render(int(self._clock() * self._units))
        return self.text


# Seconds for which lines have the same time.
_MAX_AGE = 0.0005


@lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def utc_time(seconds: float) -> str:
    """Format `seconds` since the epoch by RFC 3339, in UTC with milliseconds."""
    second = int(seconds // 1)
    return f"{_utc_second(second)}.{int((seconds - second) * 1000):03}Z"
