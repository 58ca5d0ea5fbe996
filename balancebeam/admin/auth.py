"""Who may ask the admin listener anything."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from ipaddress import ip_address

from attrs import frozen

# RFC 9110, 7.2, and without anything that is more than a host and a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(:[0-9]{1,5})?")


# A field for each: browsers do not look for a second challenge in one.
_CHALLENGES = (
    (b"WWW-Authenticate", b'Bearer realm="balancebeam"'),
    (b"WWW-Authenticate", b'Basic realm="balancebeam", charset="UTF-8"'),
)


@frozen
class Denied:
    """Why a request is not listened to; `headers` are the answer's."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


@frozen
class RequestInfo:
    """What of a request decides: the values of its headers."""

    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    sites: Sequence[str] = ()
    authorizations: Sequence[str] = ()
    preflight: bool = False


class Authorizer:
    """
    Lets in those who know the `token`, if there is one, and no web page. For a
    browser it is the password, with any name.

    `allowed_hosts` are the host names by which the listener may be called; addresses
    are always right. A page that has made its own name point to this machine
    (DNS rebinding) calls it by another, and pages of others give themselves
    away by their origin.
    """

    def __init__(self, token: bytes | None, allowed_hosts: Sequence[str]) -> None:
        self._token = token
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)

    def authorize(self, request: RequestInfo) -> Denied | None:
        """Why a request is refused, if it is."""
        if len(request.hosts) != 1 or not self._is_allowed_host(request.hosts[0]):
            return Denied(403, "this is not called by that name; use its address")
        if not self._has_valid_token(request.authorizations):
            # RFC 9110, 15.5.2: "MUST send a WWW-Authenticate header field".
            return Denied(401, "the token is wanted", _CHALLENGES)
        own = {f"{scheme}://{request.hosts[0].lower()}" for scheme in ("http", "https")}
        foreign = [origin for origin in request.origins if origin.lower() not in own]
        # The other ports of a host are of the same site, and everybody's.
        other = [site for site in request.sites if site not in ("same-origin", "none")]
        if foreign or request.preflight or other:
            return Denied(403, "pages of other origins are not listened to")
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
        given = authorizations[0] if len(authorizations) == 1 else ""
        scheme, _, word = given.partition(" ")
        token = word.strip().encode("utf-8", "replace")
        if scheme.lower() == "basic":
            token = _basic_password(token)
        same = hmac.compare_digest(token, self._token)
        return same and scheme.lower() in ("bearer", "basic")


def _basic_password(credentials: bytes) -> bytes:
    """
    What a browser that asks its user sends of him (RFC 7617): the octets after
    the name; none if they are no such thing.
    """
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
