"""The error of a server that responds to a health check, but is not healthy."""

from __future__ import annotations


class Unhealthy(Exception):
    """
    The server responded, but not as a healthy server.

    Attributes:
        detail: The complete request and response, for the first failure; empty if it adds
            nothing to the text.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail
