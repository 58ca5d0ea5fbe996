"""
Authorization of requests to the admin listener.

Three checks, in this order: the Host header (against DNS rebinding), the token,
and the origin (against cross-site requests of a browser).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from ipaddress import ip_address

from attrs import frozen

# RFC 9110, 7.2: Host = uri-host [ ":" port ].
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(:[0-9]{1,5})?")

# One header per challenge: browsers ignore a second challenge in the same header.
_CHALLENGES = (
    (b"WWW-Authenticate", b'Bearer realm="balancebeam"'),
    (b"WWW-Authenticate", b'Basic realm="balancebeam", charset="UTF-8"'),
)


@frozen
class Denied:
    """
    The rejection of a request.

    Attributes:
        status: The status of the response.
        text: The reason, for the client.
        headers: Headers of the response.
    """

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@frozen
class RequestInfo:
    """
    The properties of a request that authorization depends on.

    Attributes:
        hosts: The values of Host.
        origins: The values of Origin.
        sites: The values of Sec-Fetch-Site.
        authorizations: The values of Authorization.
        preflight: Whether the request is a CORS preflight.
        script: Whether the request was sent by the script of the page (X-Requested-With).
    """

    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    sites: Sequence[str] = ()
    authorizations: Sequence[str] = ()
    preflight: bool = False
    script: bool = False


class Authorizer:
    """
    Authorizes requests by host name, token and origin.

    The Host header has to be an IP address or an allowed name: a page that
    points its own name to this address (DNS rebinding) sends another one. Pages
    of other sites are recognized by Origin and Sec-Fetch-Site.
    """

    def __init__(self, token: bytes | None, allowed_hosts: Sequence[str]) -> None:
        """
        Create an authorizer.

        Args:
            token: The bearer token, and the password for Basic authentication (with
                any user name); `None` if no token is required.
            allowed_hosts: The host names of the listener.
        """
        self._token = token
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)

    def authorize(self, request: RequestInfo) -> Denied | None:
        """Return the rejection of `request`; `None` if it is authorized."""
        if len(request.hosts) != 1 or not self._is_allowed_host(request.hosts[0]):
            return Denied(403, "host name not allowed: use the address of the admin listener")
        if not self._has_valid_token(request.authorizations):
            # RFC 9110, 15.5.2: "MUST send a WWW-Authenticate header field".
            # A browser would show its dialog for Basic, and hold back the response from the
            # script meanwhile. The page reports the missing token itself.
            challenges = _CHALLENGES[:1] if request.script else _CHALLENGES
            return Denied(401, "authentication required", challenges)
        own_origins = {f"{scheme}://{request.hosts[0].lower()}" for scheme in ("http", "https")}
        cross_origin = any(origin.lower() not in own_origins for origin in request.origins)
        # "same-site" is rejected too: other ports of the host may belong to other users.
        cross_site = any(site not in ("same-origin", "none") for site in request.sites)
        if cross_origin or request.preflight or cross_site:
            return Denied(403, "cross-origin requests are not allowed")
        return None

    def _is_allowed_host(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        if name in self._allowed_hosts:
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _has_valid_token(self, authorizations: Sequence[str]) -> bool:
        if self._token is None:
            return True
        authorization = authorizations[0] if len(authorizations) == 1 else ""
        scheme, _, credentials = authorization.partition(" ")
        token = credentials.strip().encode("utf-8", "replace")
        if scheme.lower() == "basic":
            token = _basic_password(token)
        # Compared first, and in constant time, whatever the scheme is.
        same = hmac.compare_digest(token, self._token)
        return same and scheme.lower() in ("bearer", "basic")


def _basic_password(credentials: bytes) -> bytes:
    """Return the password of Basic credentials (RFC 7617); empty if they are malformed."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
