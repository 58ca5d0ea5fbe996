"""Settings of rate limits, which frontends, routes and pools have."""

from __future__ import annotations

from attrs import frozen


@frozen
class LimitSettings:
    """
    One rate limit.

    Attributes:
        requests: requests allowed per window and key; with "concurrent", at the same time.
        window: length of the window.
        algorithm: "fixed-window", "sliding-window", "sliding-log", "token-bucket" or "concurrent".
        burst: size of the token bucket; `None` for `requests`.
        key: what is counted together, one or several of "client" (IP address), "host",
            "header:NAME" and "path:/PREFIX".
        ipv6_prefix: bits of an IPv6 address that identify a client.
        dry_run: count and log rejections, but admit the requests.
        status: status of the response to rejected requests.
        message: text of that response.
        name: name in logs, metrics and RateLimit fields; may be empty.
    """

    requests: int
    window: float = 60.0
    algorithm: str = "sliding-window"
    burst: int | None = None
    key: tuple[str, ...] = ("client",)
    ipv6_prefix: int = 64
    dry_run: bool = False
    status: int = 429
    message: str = "too many requests"
    name: str = ""

    @property
    def title(self) -> str:
        """The name, or the key if there is no name."""
        return self.name or " ".join(self.key)
