"""Request targets (RFC 9112, 3.2): the form that is forwarded, and the host that is addressed."""

from __future__ import annotations

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.grammar import ABSOLUTE_TARGET, is_host

_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


def parse_target(
    method: bytes, target: bytes, host: bytes | None, secure: bool
) -> tuple[bytes, bytes | None]:
    """
    Return the target in the form that is forwarded, and the host that it addresses.

    RFC 9112, 3.2.1: a request to an origin server has its target in origin-form;
    absolute-form is for proxies.

    Args:
        method: The method.
        target: The request target as received.
        host: The value of Host, or `None` without one.
        secure: The connection uses TLS.

    Raises:
        RequestError: The target is invalid, or contradicts `host`.
    """
    if method == b"CONNECT":
        raise RequestError(501, "CONNECT is not supported")
    if target.startswith(b"/"):
        return target, host
    if target == b"*":
        if method != b"OPTIONS":
            raise RequestError(400, "invalid request target: * requires OPTIONS")
        return target, host
    match = ABSOLUTE_TARGET.fullmatch(target)
    if match is None:
        raise RequestError(400, "invalid request target")
    scheme, authority, path = match.group(1).lower(), match.group(2), match.group(3)
    # RFC 9110, 7.4: 'a request for an "https" resource MUST be rejected unless it has been
    # received over a connection that has been secured'. The opposite is harmless: the server
    # receives the scheme of the connection in X-Forwarded-Proto.
    if scheme != b"http" and not (secure and scheme == b"https"):
        raise RequestError(400, "invalid request target")
    if not authority or not is_host(authority):
        raise RequestError(400, "invalid request target")
    if host is not None and not is_same_authority(host, authority, scheme):
        # RFC 9112, 3.2.2 has a proxy replace Host by the target's host. Some
        # servers prefer the original Host, so the two must agree.
        raise RequestError(400, "Host header contradicts the request target")
    if not path:
        # RFC 9112, 3.2.4: "the last proxy on the request chain MUST send a
        # request-target of "*"" for an OPTIONS request with an empty path.
        path = b"*" if method == b"OPTIONS" else b"/"
    elif path.startswith(b"?"):
        path = b"/" + path
    return path, authority


def is_same_authority(authority: bytes, other: bytes, scheme: bytes) -> bool:
    """Whether two valid authorities are the same host and port under `scheme`."""
    return _without_port(authority, scheme) == _without_port(other, scheme)


def _without_port(authority: bytes, scheme: bytes) -> bytes:
    """Return a host in lower case, without the default port of `scheme` or an empty one."""
    authority, port = authority.lower(), _DEFAULT_PORTS[scheme]
    return authority[: -len(port)] if authority.endswith(port) else authority.rstrip(b":")
