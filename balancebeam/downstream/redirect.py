"""Redirects from http to https, and ACME http-01 challenges, on a frontend without a pool."""

from __future__ import annotations

from collections.abc import Callable

from balancebeam.admission.admission import Admission
from balancebeam.downstream.exchange import ClientExchange
from balancebeam.net.ticker import Ticker
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.explanation import ExplainedRequest, Explanation
from balancebeam.proxy.local_dispatcher import LocalDispatcher

HTTPS_PORT = 443

# RFC 8555, 8.3: where the ACME server expects the response to an http-01 challenge.
CHALLENGE_PREFIX = b"/.well-known/acme-challenge/"

# RFC 8555, 8.3 has this media type in its example, and sets no requirement.
_CHALLENGE_TYPE = b"application/octet-stream"

# Returns the key authorization for the path of a challenge; `None` for an unknown one.
ChallengeLookup = Callable[[bytes], "bytes | None"]


class HttpsRedirect(LocalDispatcher):
    """
    Redirects every request to the same URL under https.

    The status is 308, so that the client repeats the method and the body (RFC 9110, 15.4.9).

    Args:
        admission: The access list and rate limits of the frontend.
        ticker: The coarse clock of timeouts.
        clock: Returns the time of the reactor in seconds.
        https_port: Returns the port of the URLs.
        find_challenge: Finds the responses to ACME http-01 challenges, which are not redirected.
    """

    def __init__(
        self,
        admission: Admission,
        ticker: Ticker,
        clock: Callable[[], float],
        https_port: Callable[[], int],
        find_challenge: ChallengeLookup,
    ) -> None:
        super().__init__(admission, ticker, clock)
        self._https_port = https_port
        self._find_challenge = find_challenge

    def respond(self, exchange: Exchange) -> None:
        # Only HTTP frontends redirect.
        assert isinstance(exchange, ClientExchange)
        head = exchange.head
        key_authorization = self._key_authorization(head.method, head.target)
        if key_authorization is not None:
            fields = ((b"Content-Type", _CHALLENGE_TYPE),)
            exchange.send_reply(200, key_authorization, fields)
            return
        location = self._location(head.host, head.target)
        if location is None:
            exchange.local_reply(400, "no redirect to https: the request has no host or no path")
        else:
            exchange.send_reply(308, b"", ((b"Location", location),))

    def explain(self, request: ExplainedRequest) -> Explanation:
        if self._key_authorization(request.method, request.target) is not None:
            return Explanation(status=200)
        location = self._location(request.host, request.target)
        return Explanation(status=400 if location is None else 308)

    def _key_authorization(self, method: bytes, target: bytes) -> bytes | None:
        """Return the response to a request of an ACME server; `None` for any other request."""
        if target.startswith(CHALLENGE_PREFIX) and method in (b"GET", b"HEAD"):
            return self._find_challenge(target.partition(b"?")[0])
        return None

    def _location(self, authority: bytes | None, target: bytes) -> bytes | None:
        """
        Return the URL of a request under https; `None` if it has no host or no path.

        The parser has validated both: a host has neither a user name nor a slash, and a target
        neither whitespace nor a line end. So the URL is always on this host.
        """
        host = _without_port(authority or b"")
        if not host or not target.startswith(b"/"):
            return None
        port = self._https_port()
        location = host if port == HTTPS_PORT else b"%b:%d" % (host, port)
        return b"https://%b%b" % (location, target)


def _without_port(authority: bytes) -> bytes:
    """Return the host of a valid authority; an IPv6 address keeps its brackets."""
    if authority.startswith(b"["):
        return authority[: authority.index(b"]") + 1]
    return authority.partition(b":")[0]
