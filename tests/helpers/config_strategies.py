"""Hypothesis strategies of complete settings, and a writer of TOML values."""

from __future__ import annotations

from datetime import date, datetime, time
from math import isinf, isnan
from typing import Any

from attrs import evolve
from hypothesis import strategies as st

from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.config.frontends import ACCESS_LOG_FORMATS
from balancebeam.config.values import MAX_SECONDS
from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.networks import parse_network
from balancebeam.core.settings import (
    HTTP1,
    HTTP2,
    UPSTREAM_PROTOCOLS,
    AcmeSettings,
    AdminSettings,
    CertificateSource,
    ForwardingSettings,
    FrontendSettings,
    FrontendTimeouts,
    FrontendTlsSettings,
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    PoolTlsSettings,
    QueueSettings,
    RetrySettings,
    RouteSettings,
    SecretSource,
    ServerSettings,
    Settings,
)
from balancebeam.core.tls_settings import (
    CLIENT_AUTH_MODES,
    DEFAULT_CIPHERS,
    LETS_ENCRYPT,
    TLS_VERSIONS,
)
from balancebeam.ratelimit.limit import ALGORITHMS as LIMITS

# Texts with characters that need escapes or have a meaning in TOML.
AWKWARD_TEXTS = (
    *('"', "\\", "'''", '"""', "\x7f", "\x80", "\x00", "\r\n", "\u2028", "\ufeff", "# no", "\t"),
    *("[[pool]]", '"\n[admin]\nbind = "0.0.0.0:1"\n', "\U0001f600", "\\u0041", "${HOME}", "", " "),
)

TEXTS = st.one_of(
    st.sampled_from(AWKWARD_TEXTS), st.text(st.characters(codec="utf-8"), max_size=12)
)
_NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,8}", fullmatch=True)
_SECONDS = st.floats(0, MAX_SECONDS, exclude_min=True) | st.integers(1, 600).map(float)
_SECONDS_OR_ZERO = st.floats(0, MAX_SECONDS)
_FRACTIONS = st.floats(0, 1)
_COUNTS = st.integers(1, 10**9)

_HOSTS = st.sampled_from(("localhost", "a-b.example.org", "_x", "10.0.0.1", "::1", "fe80::1%eth0"))
_LISTEN_TCP = st.builds(TcpAddress, _HOSTS, st.integers(0, 65535))
_FILES = TEXTS.filter(lambda text: bool(text) and "\0" not in text)
# Paths without directories, as the directory of the state file has to exist.
_STATE_FILES = _FILES.map(lambda text: "state-" + text.replace("/", ""))
_PATHS = _FILES.map(lambda text: "/" + text)
_LISTEN_UNIX = st.builds(UnixAddress, _PATHS.filter(lambda path: ":" not in path))
_ENDPOINTS = st.builds(
    EndpointAddress,
    st.sampled_from(("tcp:80:interface=127.0.0.1", "unix:/a\\:b:mode=660", 'tcp6:8\\"0', "tcp:1")),
)
_LISTEN: st.SearchStrategy[ListenAddress] = st.one_of(
    _LISTEN_TCP,
    _LISTEN_UNIX,
    _ENDPOINTS,
    st.builds(ProxyProtocolAddress, st.one_of(_LISTEN_TCP, _LISTEN_UNIX, _ENDPOINTS)),
)
_SERVER_ADDRESSES: st.SearchStrategy[ServerAddress] = st.one_of(
    st.builds(
        TcpAddress,
        _HOSTS | st.sampled_from(("unix", "tcp", "haproxy", "http")),
        st.integers(1, 65535),
    ),
    st.builds(UnixAddress, _PATHS),
)
_SERVERS = st.builds(
    ServerSettings,
    _SERVER_ADDRESSES,
    st.integers(0, 256),
    st.booleans(),
    st.none() | _COUNTS,
    st.sampled_from((None, 1, 2)),
    st.booleans(),
    st.sampled_from((None, *UPSTREAM_PROTOCOLS)),
).map(
    # A Unix socket has no scheme.
    lambda server: evolve(server, tls=server.tls and isinstance(server.address, TcpAddress))
)
_NETWORKS = st.lists(
    st.sampled_from(("unix:", "10.0.0.0/8", "::/0", "::1", "192.0.2.77/24")).map(parse_network),
    max_size=3,
).map(tuple)

_CLIENT_KEYS = st.just(("client",))
_KEYS = _CLIENT_KEYS | st.lists(
    st.sampled_from(("client", "host", "header:X-Api-Key", "header:~"))
    | TEXTS.map(lambda text: "path:/" + text),
    min_size=1,
    max_size=3,
).map(tuple)
_NAMES_OF_LIMITS = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, blacklist_characters='"\\'),
    min_size=1,
    max_size=9,
)


@st.composite
def limits(draw: st.DrawFn, tcp: bool) -> LimitSettings:
    """Draw a rate limit, with any key or for TCP mode."""
    algorithm = draw(st.sampled_from(LIMITS))
    key = draw(_CLIENT_KEYS if tcp else _KEYS)
    # The key replaces a missing name, which may then not be valid as a name.
    needs_name = any(name.startswith("path:") for name in key)
    return LimitSettings(
        requests=draw(_COUNTS),
        window=60.0 if algorithm == "concurrent" else draw(_SECONDS),
        algorithm=algorithm,
        burst=draw(st.none() | _COUNTS) if algorithm == "token-bucket" else None,
        key=key,
        ipv6_prefix=draw(st.integers(1, 128)),
        dry_run=draw(st.booleans()),
        status=draw(st.integers(400, 599)),
        message=draw(TEXTS),
        name=draw(_NAMES_OF_LIMITS if needs_name else _NAMES_OF_LIMITS | st.just("")),
    )


def limit_tuples(tcp: bool) -> st.SearchStrategy[tuple[LimitSettings, ...]]:
    """Return the strategy of up to two rate limits."""
    return st.lists(limits(tcp), max_size=2).map(tuple)


_CERTIFICATES = st.lists(
    st.builds(CertificateSource, _FILES, st.none() | _FILES), max_size=2, unique_by=str
).map(tuple)
_ACME_NAMES = st.lists(
    st.sampled_from(("www.example.org", "a", "xn--bcher-kva.example")), max_size=2, unique=True
).map(tuple)
_CIPHERS = st.sampled_from((DEFAULT_CIPHERS, "ECDHE+AESGCM", "HIGH:!aNULL:@SECLEVEL=2"))
_PROTOCOLS = TEXTS.filter(lambda text: text.isascii() and text) | st.just("h2")


@st.composite
def frontend_tls(draw: st.DrawFn, tcp: bool) -> FrontendTlsSettings:
    """Draw the settings of TLS of a frontend; its names for ACME need an account."""
    client_ca = draw(st.none() | _FILES)
    names = _PROTOCOLS if tcp else st.sampled_from(("h2", "http/1.1"))
    settings = FrontendTlsSettings(
        certificates=draw(_CERTIFICATES),
        acme=draw(_ACME_NAMES),
        min_version=draw(st.sampled_from(TLS_VERSIONS)),
        ciphers=draw(_CIPHERS),
        alpn=draw(st.none() | st.lists(names, max_size=3, unique=True).map(tuple)),
        strict_sni=draw(st.booleans()),
        client_ca=client_ca,
        client_auth="require" if client_ca is None else draw(st.sampled_from(CLIENT_AUTH_MODES)),
    )
    needs_certificate = not settings.certificates and not settings.acme
    return evolve(settings, self_signed=needs_certificate or draw(st.booleans()))


@st.composite
def pool_tls(draw: st.DrawFn) -> PoolTlsSettings:
    """Draw the settings of TLS of a pool, valid for servers of any kind."""
    verify, all_servers = draw(st.booleans()), draw(st.booleans())
    names = st.sampled_from(("app.internal", "10.0.0.1", "::1", "my_app"))
    cert = draw(st.none() | _FILES)
    return PoolTlsSettings(
        ca=draw(st.none() | _FILES) if verify else None,
        # A pool may have Unix sockets, which have no name.
        server_name=draw(names if verify and all_servers else st.none() | names),
        verify=verify,
        cert=cert,
        key=None if cert is None else draw(st.none() | _FILES),
        all_servers=all_servers,
    )


ACME_SETTINGS = st.builds(
    AcmeSettings,
    _FILES,
    st.sampled_from((LETS_ENCRYPT, "https://localhost:14000/dir", "https://[::1]")),
    st.none() | st.just("ops@example.org"),
    st.none() | _FILES,
)

_CHECK_PATHS = st.sampled_from(("/", "/health", "/a%20b?x=1&y=%22'"))


@st.composite
def pools(draw: st.DrawFn, name: str, tcp: bool) -> PoolSettings:
    """Draw a pool, for HTTP or TCP frontends."""
    statuses = sorted(draw(st.tuples(st.integers(100, 599), st.integers(100, 599))))
    checks = st.builds(
        HealthCheckSettings,
        path=st.none() if tcp else _CHECK_PATHS,
        interval=_SECONDS,
        timeout=st.none() | _SECONDS,
        fall=st.integers(1, 1000),
        rise=st.integers(1, 1000),
        status=st.just((statuses[0], statuses[1])),
    )
    servers = tuple(
        draw(st.lists(_SERVERS, min_size=1, max_size=3, unique_by=lambda server: server.address))
    )
    if tcp:
        servers = tuple(evolve(server, protocol=None) for server in servers)
    protocol = HTTP1 if tcp else draw(st.sampled_from(UPSTREAM_PROTOCOLS))
    if all((server.protocol or protocol) == HTTP2 for server in servers):
        checks |= st.builds(
            HealthCheckSettings,
            path=st.none(),
            interval=_SECONDS,
            grpc=st.sampled_from(("", "my.Service")),
        )
    return PoolSettings(
        name=name,
        servers=servers,
        protocol=protocol,
        algorithm=draw(st.sampled_from(sorted(ALGORITHMS))),
        timeouts=draw(st.builds(PoolTimeouts, _SECONDS, _SECONDS)),
        active=draw(st.none() | checks),
        passive=draw(
            st.builds(
                OutlierDetectionSettings,
                st.integers(1, 10**6),
                _SECONDS_OR_ZERO,
                st.none() | _FRACTIONS,
                _SECONDS,
                _COUNTS,
                _FRACTIONS,
                st.integers(1, 10**6),
            )
        ),
        retries=draw(
            st.builds(
                RetrySettings,
                st.integers(1, 1000),
                _FRACTIONS,
                st.sampled_from([(), ("cut",), ("connect", "cut", "timeout")]),
            )
        ),
        queue=draw(st.builds(QueueSettings, st.integers(0, 10**6), _SECONDS_OR_ZERO)),
        slow_start=draw(_SECONDS_OR_ZERO),
        limits=draw(limit_tuples(tcp)),
        tls=draw(st.none() | pool_tls()),
    )


_ROUTE_HOSTS = st.sampled_from(("api.example.org", "*.example.org", "A", "[::1]", "a_b."))
_ROUTE_PATHS = st.one_of(
    st.just("/"), _PATHS.filter(lambda path: "?" not in path and "#" not in path)
)


@st.composite
def routes(draw: st.DrawFn, names: list[str], tcp: bool) -> RouteSettings:
    """Draw a route to one of the pools `names`."""
    host = draw(_ROUTE_HOSTS if tcp else st.none() | _ROUTE_HOSTS)
    path = None if tcp else draw(_ROUTE_PATHS if host is None else st.none() | _ROUTE_PATHS)
    return RouteSettings(draw(st.sampled_from(names)), host, path, draw(limit_tuples(tcp)))


@st.composite
def frontends(
    draw: st.DrawFn, name: str, bind: tuple[ListenAddress, ...], names: list[str], tcp: bool
) -> FrontendSettings:
    """Draw a frontend with these addresses, and with routes to the pools `names`."""
    route_lists = st.lists(
        routes(names, tcp), max_size=2, unique_by=lambda route: (route.host, route.path)
    )
    tls = draw(st.none() | frontend_tls(tcp))
    return FrontendSettings(
        name=name,
        bind=bind,
        mode="tcp" if tcp else "http",
        pool=draw(st.sampled_from(names)),
        routes=tuple(draw(route_lists)),
        trusted_proxies=draw(_NETWORKS),
        max_body=None if tcp else draw(st.none() | st.integers(1, 2**63 - 1)),
        registration=not tcp and draw(st.booleans()),
        registration_from=() if tcp else draw(_NETWORKS),
        access_log=draw(st.none() | _FILES),
        access_log_format=draw(st.sampled_from(ACCESS_LOG_FORMATS)),
        timeouts=draw(st.builds(FrontendTimeouts, _SECONDS, _SECONDS, _SECONDS_OR_ZERO)),
        limits=draw(limit_tuples(tcp)),
        allow=draw(_NETWORKS),
        deny=draw(_NETWORKS),
        forwarding=ForwardingSettings()
        if tcp
        else draw(
            st.builds(
                ForwardingSettings,
                st.booleans(),
                st.booleans(),
                st.sampled_from(("off", "keep", "make")),
                st.booleans() | st.sampled_from(("edge", "lb.example:80", "true")),
            )
        ),
        log_connections=tcp and draw(st.booleans()),
        max_connections=draw(st.none() | _COUNTS),
        tls=tls,
        h2c=not tcp and tls is None and draw(st.booleans()),
    )


def redirect_only(frontend: FrontendSettings) -> FrontendSettings:
    """Return the settings of a frontend changed to redirect to `https`."""
    return evolve(
        frontend,
        redirect_https=True,
        pool=FrontendSettings().pool,
        routes=(),
        registration=False,
        registration_from=(),
        tls=None,
    )


_TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
_SECRETS = st.one_of(
    st.builds(SecretSource, _TOKENS),
    st.builds(SecretSource, file=_FILES),
    st.builds(SecretSource, variable=TEXTS),
)


@st.composite
def all_settings(draw: st.DrawFn) -> Settings:
    """Draw complete and valid settings."""
    names = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    tcp = [draw(st.booleans()) for _ in names]
    frontend_names = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    addresses = draw(st.lists(_LISTEN, min_size=7, max_size=7, unique_by=str))
    drawn = []
    for number, name in enumerate(frontend_names):
        is_tcp = draw(st.sampled_from(tcp))
        pool_names = [pool for pool, pool_is_tcp in zip(names, tcp) if pool_is_tcp == is_tcp]
        bind = tuple(addresses[number * 2 : number * 2 + draw(st.integers(1, 2))])
        frontend = draw(frontends(name, bind, pool_names, is_tcp))
        redirects = not is_tcp and draw(st.booleans())
        drawn.append(redirect_only(frontend) if redirects else frontend)
    settings = Settings(
        tuple(drawn),
        (),
        draw(st.none() | st.builds(AdminSettings, st.just(addresses[6]), st.none() | _SECRETS)),
        draw(st.none() | _STATE_FILES),
        draw(_SECONDS_OR_ZERO),
        draw(st.integers(0, 100)),
        draw(st.none() | _SECONDS_OR_ZERO),
    )
    if draw(st.booleans()) or any(item.tls is not None and item.tls.acme for item in drawn):
        settings = evolve(settings, acme=draw(ACME_SETTINGS))
    # A pool that no frontend uses is parsed as one for HTTP.
    modes = {name: settings.pool_mode(name) == "tcp" for name in names}
    settings = evolve(settings, pools=tuple(draw(pools(name, modes[name])) for name in names))
    default = next(pool for pool in settings.pools if pool.name == settings.default_pool)
    if default.tls is not None and default.tls.all_servers:
        # Demo servers have no TLS.
        settings = evolve(settings, demo=0)
    return settings


def toml(value: Any) -> str:
    """Return a value of any TOML type as inline TOML, written without the code under test."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = "".join(
            char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}"
            for char in value
        )
        return f'"{text}"'
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return (
            "nan"
            if isnan(value)
            else ("-inf" if value < 0 else "inf") * isinf(value) or repr(value)
        )
    return value.isoformat() if isinstance(value, (date, datetime, time)) else repr(value)
