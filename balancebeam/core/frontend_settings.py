"""Settings of frontends: listening, routing, and client connections."""

from __future__ import annotations

from attrs import frozen

from balancebeam.core.addresses import ListenAddress, TcpAddress
from balancebeam.core.limit_settings import LimitSettings
from balancebeam.core.tls_settings import FrontendTlsSettings


@frozen
class FrontendTimeouts:
    """
    Timeouts of client connections.

    Attributes:
        header: time limit for receiving the head of a request.
        idle: longest time without progress of a client: between requests, within a request body, or
            while the client does not read its response.
        tunnel: longest time without data in both directions of a TCP connection or a tunnel (such
            as a WebSocket); 0 for no limit.
    """

    header: float = 10.0
    idle: float = 60.0
    tunnel: float = 0.0


@frozen
class ForwardingSettings:
    """
    Header fields about the client that are added to forwarded requests.

    Attributes:
        x_forwarded: send X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.
        forwarded: send Forwarded (RFC 7239).
        request_id: X-Request-Id: "off", "keep" (generate one if the request has none) or "make"
            (always generate one).
        via: add Via to requests and responses, with the name "balancebeam" or this one.
    """

    x_forwarded: bool = True
    forwarded: bool = False
    request_id: str = "off"
    via: bool | str = True

    @property
    def via_name(self) -> bytes:
        """The name of this proxy in Via; empty to add no Via."""
        return self.via.encode("ascii") if isinstance(self.via, str) else b"balancebeam" * self.via


@frozen
class RouteSettings:
    """
    A condition on requests, and the pool that serves them.

    Attributes:
        pool: name of the pool.
        host: host name, or "*.example.org" for all names below a domain; in TCP mode the server
            name of a TLS client (SNI). `None` for any.
        path: prefix of the path, on segment boundaries; `None` for any.
        limits: rate limits of the requests that match.
    """

    pool: str
    host: str | None = None
    path: str | None = None
    limits: tuple[LimitSettings, ...] = ()


@frozen
class FrontendSettings:
    """
    Listening addresses, and the routing of their requests.

    Attributes:
        name: unique name.
        bind: addresses to listen on.
        mode: "http" or "tcp".
        pool: name of the pool of requests that no route matches.
        routes: routes; the first that matches is taken.
        trusted_proxies: networks of proxies whose X-Forwarded-For, X-Forwarded-Proto,
            X-Forwarded-Host and Forwarded are trusted.
        max_body: largest request body; `None` for no limit.
        registration: accept `POST /register`, from loopback addresses and `registration_from`.
        registration_from: other networks from which servers may register.
        access_log: path of the access log, or "-" for the standard output; `None` for none.
        access_log_format: "combined" or "json".
        timeouts: timeouts of client connections.
        limits: rate limits of all requests.
        allow: networks of clients that are accepted; empty for all.
        deny: networks of clients that are rejected, even if `allow` has them.
        forwarding: header fields about the client.
        log_connections: log each TCP connection.
        max_connections: clients that are connected at once; more wait in the listen queue.
            `None` for no limit.
        tls: TLS on all addresses; `None` for plain connections.
        redirect_https: answer every request with a redirect to the same URL under `https`, and
            serve ACME http-01 challenges; the pool is not used then.
        h2c: accept HTTP/2 with prior knowledge on plain connections, beside HTTP/1.1.
    """

    name: str = "web"
    bind: tuple[ListenAddress, ...] = (TcpAddress("0.0.0.0", 1100),)
    mode: str = "http"
    pool: str = "app"
    routes: tuple[RouteSettings, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_body: int | None = None
    registration: bool = False
    registration_from: tuple[str, ...] = ()
    access_log: str | None = None
    access_log_format: str = "combined"
    timeouts: FrontendTimeouts = FrontendTimeouts()
    limits: tuple[LimitSettings, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    forwarding: ForwardingSettings = ForwardingSettings()
    log_connections: bool = False
    max_connections: int | None = None
    tls: FrontendTlsSettings | None = None
    redirect_https: bool = False
    h2c: bool = False

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The pool of the frontend, and the pools of its routes; none with `redirect_https`."""
        if self.redirect_https:
            return ()
        return (self.pool, *(route.pool for route in self.routes))
