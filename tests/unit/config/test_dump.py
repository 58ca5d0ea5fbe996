"""Settings as a file and back again, and files that something happened to."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from datetime import date, datetime, time, timezone
from math import isinf, isnan
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.config.cross_checks import check_admin, validate_settings
from balancebeam.config.dump import MASK, dump
from balancebeam.config.frontends import ACCESS_LOG_FORMATS
from balancebeam.config.numbers import MAX_SECONDS
from balancebeam.config.toml_file import finalize, load_file
from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.errors import ConfigError
from balancebeam.core.networks import parse_network
from balancebeam.core.settings import (
    AdminSettings,
    ForwardingSettings,
    FrontendSettings,
    FrontendTimeouts,
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    QueueSettings,
    RetrySettings,
    RouteSettings,
    SecretSource,
    ServerSettings,
    Settings,
)
from balancebeam.process.options import CommandLineOptions as Options
from balancebeam.ratelimit.limit import ALGORITHMS as LIMITS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What files, tests and people trip over.
NASTY = (
    *('"', "\\", "'''", '"""', "\x7f", "\x80", "\x00", "\r\n", "\u2028", "\ufeff", "# no", "\t"),
    *("[[pool]]", '"\n[admin]\nbind = "0.0.0.0:1"\n', "\U0001f600", "\\u0041", "${HOME}", "", " "),
)

_TEXTS = st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec="utf-8"), max_size=12))
_NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,8}", fullmatch=True)
_SECONDS = st.floats(0, MAX_SECONDS, exclude_min=True) | st.integers(1, 600).map(float)
_SECONDS_OR_NONE = st.floats(0, MAX_SECONDS)
_SHARES = st.floats(0, 1)
_MANY = st.integers(1, 10**9)

_HOSTS = st.sampled_from(("localhost", "a-b.example.org", "_x", "10.0.0.1", "::1", "fe80::1%eth0"))
_LISTEN_TCP = st.builds(TcpAddress, _HOSTS, st.integers(0, 65535))
_FILES = _TEXTS.filter(lambda text: bool(text) and "\0" not in text)
# In a folder that there is.
_STATES = _FILES.map(lambda text: "state-" + text.replace("/", ""))
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
    st.none() | _MANY,
    st.sampled_from((None, 1, 2)),
)
_NETWORKS = st.lists(
    st.sampled_from(("unix:", "10.0.0.0/8", "::/0", "::1", "192.0.2.77/24")).map(parse_network),
    max_size=3,
).map(tuple)

_CLIENT_KEYS = st.just(("client",))
_KEYS = _CLIENT_KEYS | st.lists(
    st.sampled_from(("client", "host", "header:X-Api-Key", "header:~"))
    | _TEXTS.map(lambda text: "path:/" + text),
    min_size=1,
    max_size=3,
).map(tuple)
_TITLES = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, blacklist_characters='"\\'),
    min_size=1,
    max_size=9,
)


@st.composite
def limits(draw: st.DrawFn, tcp: bool) -> LimitSettings:
    algorithm = draw(st.sampled_from(LIMITS))
    key = draw(_CLIENT_KEYS if tcp else _KEYS)
    plain = not any(name.startswith("path:") for name in key)
    return LimitSettings(
        requests=draw(_MANY),
        window=60.0 if algorithm == "concurrent" else draw(_SECONDS),
        algorithm=algorithm,
        burst=draw(st.none() | _MANY) if algorithm == "token-bucket" else None,
        key=key,
        ipv6_prefix=draw(st.integers(1, 128)),
        dry_run=draw(st.booleans()),
        status=draw(st.integers(400, 599)),
        message=draw(_TEXTS),
        name=draw(_TITLES | st.just("") if plain else _TITLES),
    )


def some_limits(tcp: bool) -> st.SearchStrategy[tuple[LimitSettings, ...]]:
    return st.lists(limits(tcp), max_size=2).map(tuple)


_CHECK_PATHS = st.sampled_from(("/", "/health", "/a%20b?x=1&y=%22'"))


@st.composite
def pools(draw: st.DrawFn, name: str, tcp: bool) -> PoolSettings:
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
    servers = st.lists(_SERVERS, min_size=1, max_size=3, unique_by=lambda server: server.address)
    return PoolSettings(
        name=name,
        servers=tuple(draw(servers)),
        algorithm=draw(st.sampled_from(sorted(ALGORITHMS))),
        timeouts=draw(st.builds(PoolTimeouts, _SECONDS, _SECONDS)),
        active=draw(st.none() | checks),
        passive=draw(
            st.builds(
                OutlierDetectionSettings,
                st.integers(1, 10**6),
                _SECONDS_OR_NONE,
                st.none() | _SHARES,
                _SECONDS,
                _MANY,
                _SHARES,
            )
        ),
        retries=draw(st.builds(RetrySettings, st.integers(1, 1000), _SHARES)),
        queue=draw(st.builds(QueueSettings, st.integers(0, 10**6), _SECONDS_OR_NONE)),
        slow_start=draw(_SECONDS_OR_NONE),
        limits=draw(some_limits(tcp)),
    )


_ROUTE_HOSTS = st.sampled_from(("api.example.org", "*.example.org", "A", "[::1]", "a_b."))
_ROUTE_PATHS = st.one_of(
    st.just("/"), _PATHS.filter(lambda path: "?" not in path and "#" not in path)
)


@st.composite
def routes(draw: st.DrawFn, names: list[str], tcp: bool) -> RouteSettings:
    host = draw(_ROUTE_HOSTS if tcp else st.none() | _ROUTE_HOSTS)
    path = None if tcp else draw(_ROUTE_PATHS if host is None else st.none() | _ROUTE_PATHS)
    return RouteSettings(draw(st.sampled_from(names)), host, path, draw(some_limits(tcp)))


@st.composite
def frontends(
    draw: st.DrawFn, name: str, bind: tuple[ListenAddress, ...], names: list[str], tcp: bool
) -> FrontendSettings:
    found = st.lists(routes(names, tcp), max_size=2, unique_by=lambda one: (one.host, one.path))
    return FrontendSettings(
        name=name,
        bind=bind,
        mode="tcp" if tcp else "http",
        pool=draw(st.sampled_from(names)),
        routes=tuple(draw(found)),
        trusted_proxies=draw(_NETWORKS),
        max_body=None if tcp else draw(st.none() | st.integers(1, 2**63 - 1)),
        registration=not tcp and draw(st.booleans()),
        registration_from=() if tcp else draw(_NETWORKS),
        access_log=draw(st.none() | _FILES),
        access_log_format=draw(st.sampled_from(ACCESS_LOG_FORMATS)),
        timeouts=draw(st.builds(FrontendTimeouts, _SECONDS, _SECONDS, _SECONDS_OR_NONE)),
        limits=draw(some_limits(tcp)),
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
            )
        ),
        log_connections=tcp and draw(st.booleans()),
    )


_TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
_SECRETS = st.one_of(
    st.builds(SecretSource, _TOKENS),
    st.builds(SecretSource, file=_FILES),
    st.builds(SecretSource, variable=_TEXTS),
)


@st.composite
def all_settings(draw: st.DrawFn) -> Settings:
    names = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    tcp = [draw(st.booleans()) for _ in names]
    doors = draw(st.lists(_NAMES, min_size=1, max_size=3, unique=True))
    addresses = draw(st.lists(_LISTEN, min_size=7, max_size=7, unique_by=str))
    found = []
    for number, name in enumerate(doors):
        is_tcp = draw(st.sampled_from(tcp))
        mine = [pool for pool, its in zip(names, tcp) if its == is_tcp]
        bind = tuple(addresses[number * 2 : number * 2 + draw(st.integers(1, 2))])
        found.append(draw(frontends(name, bind, mine, is_tcp)))
    settings = Settings(
        tuple(found),
        (),
        draw(st.none() | st.builds(AdminSettings, st.just(addresses[6]), st.none() | _SECRETS)),
        draw(st.none() | _STATES),
        draw(_SECONDS_OR_NONE),
        draw(st.integers(0, 100)),
    )
    # What nobody uses is read as for HTTP.
    modes = {name: settings.pool_mode(name) == "tcp" for name in names}
    return evolve(settings, pools=tuple(draw(pools(name, modes[name])) for name in names))


GOOD = """\
state = "/var/lib/balancebeam/state"
drain_timeout = 30

[[frontend]]
name = "web"
bind = ["0.0.0.0:1100", "[::]:1100"]
mode = "http"
pool = "app"
trusted_proxies = ["10.0.0.0/8"]
max_body = "1GiB"
registration = true
registration_from = ["10.1.0.0/16"]
access_log = "-"
access_log_format = "json"
allow = ["0.0.0.0/0"]

[[frontend.route]]
host = "*.example.org"
path = "/v1"
pool = "api"
[[frontend.route.limit]]
algorithm = "token-bucket"
requests = 10
burst = 5

[frontend.limit]
requests = 600
per = 60
key = ["client", "header:X-Api-Key"]

[frontend.timeouts]
header = 10
idle = 60

[frontend.forwarding]
forwarded = true
request_id = "make"

[[frontend]]
name = "db"
mode = "tcp"
bind = "unix:/run/db"
pool = "db"
log_connections = true

[[pool]]
name = "app"
algorithm = "power-of-two"
upstreams = [
    "127.0.0.1:8080,weight=2",
    {address = "127.0.0.1:8081", weight = 5, max_in_flight = 200, backup = false},
]
timeouts = {connect = 5, upstream = 60}

[pool.health]
path = "/health"
interval = 10
status = "200-299"

[pool.passive]
failures = 1
error_ratio = 0.5

[pool.retries]
attempts = 3
budget = 0.2

[[pool]]
name = "api"
upstreams = ["unix:/run/api"]
queue.limit = 5

[[pool]]
name = "db"
upstreams = ["127.0.0.1:5432"]
health = {interval = 3}

[admin]
bind = "127.0.0.1:1101"
token = {env = "BALANCEBEAM_TOKEN"}
"""

LINES = GOOD.splitlines()


def toml(value: Any) -> str:
    """`value` as an inline value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = "".join(
            char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}"
            for char in value
        )
        return f'"{text}"'
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return (
            "nan"
            if isnan(value)
            else ("-inf" if value < 0 else "inf") * isinf(value) or repr(value)
        )
    return value.isoformat() if isinstance(value, (date, datetime, time)) else repr(value)


_ODD = st.recursive(
    st.one_of(
        st.sampled_from((0, -1, True, False, 10**12, 10**400, 0.5, -0.0, 1e300, "1GiB", "all")),
        st.sampled_from((date(2020, 1, 2), time(3, 4), datetime(2020, 1, 2, tzinfo=timezone.utc))),
        st.integers(),
        st.floats(),
        _TEXTS,
        st.sampled_from(("", "app", "api", "db", "web", "http", "tcp", "client", "127.0.0.1:1101")),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths in parsed data."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else pairs:
        found += places(one, (*path, key))
    return found


PLACES = places(tomllib.loads(GOOD))

# Everything that a file may say, and more.
KEYS = sorted({str(path[-1]) for path in PLACES if isinstance(path[-1], str)})


class DumpTestCase(SynchronousTestCase):
    """One file, again and again."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "balancebeam.toml")

    def read(self, text: str) -> tuple[Settings, list[str]]:
        with open(self.path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return load_file(self.path)


class DumpRoundTripTests(DumpTestCase):
    """What is dumped reads back to the same."""

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(all_settings())
    def test_all_settings(self, given_settings: Settings) -> None:
        text = dump(given_settings)
        found, problems = self.read(text)
        self.assertEqual(problems, [], text)
        self.assertEqual(finalize(found), given_settings, text)
        # It is what stands in the file, and again.
        self.assertEqual(dump(finalize(found)), text)
        self.assertEqual(validate_settings(given_settings), [])

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(all_settings(), st.text("abcdefghijklmnopqrstuvwxyz\"\\'#", min_size=24, max_size=24))
    def test_a_masked_secret_is_not_shown(self, given_settings: Settings, token: str) -> None:
        admin = evolve(given_settings.admin or AdminSettings(), token=SecretSource(token))
        given_settings = evolve(given_settings, admin=admin)
        text = dump(given_settings, mask=True)
        self.assertNotIn(token, text)
        self.assertNotIn(toml(token), text)
        self.assertNotIn(token, repr(given_settings))
        found, problems = self.read(text)
        self.assertEqual(problems, [])
        masked = evolve(admin, token=SecretSource(MASK))
        self.assertEqual(finalize(found), evolve(given_settings, admin=masked))
        # And nothing else changes.
        self.assertEqual(finalize(self.read(dump(given_settings))[0]), given_settings)

    def test_defaults(self) -> None:
        for usual in (
            finalize(Settings((), ())),
            Settings((FrontendSettings(),), (PoolSettings(),), AdminSettings()),
        ):
            found, problems = self.read(dump(usual))
            self.assertEqual(problems, [])
            self.assertEqual(finalize(found), usual)


class MutatedFileTests(DumpTestCase):
    """Whatever a file says is answered: by settings, or by lines that say why not."""

    def answered(self, text: str) -> None:
        found, problems = self.read(text)
        for problem in problems:
            self.assertTrue(problem.startswith(f"{self.path}:"), problem)
            self.assertEqual(problem.splitlines(), [problem])
            self.assertNotIn("Traceback", problem)
        whole = finalize(found)
        # Anything goes here, but for exceptions.
        validate_settings(whole)
        if whole.admin is not None:
            check_admin(whole.admin)
        if not problems:
            again, others = self.read(dump(whole))
            self.assertEqual(others, [], text)
            self.assertEqual(finalize(again), whole, text)
            self.read(text)
        options = Options()
        try:
            options.parseOptions(["-c", self.path])
        except ConfigError as error:
            self.assertEqual(str(error).splitlines(), str(error).split("\n"))
            self.assertTrue(set(problems) <= set(error.problems))
        else:
            self.assertEqual(problems, [])

    def test_as_it_is(self) -> None:
        _, problems = self.read(GOOD)
        self.assertEqual(problems, [])
        self.answered(GOOD)

    def test_each_line_left_out_or_twice(self) -> None:
        for number in range(len(LINES)):
            for lines in (
                LINES[:number] + LINES[number + 1 :],
                LINES[: number + 1] + LINES[number:],
                LINES[:number],
            ):
                self.answered("\n".join(lines))
                _, problems = self.read("\n".join(lines))
                self.assertEqual(len(set(problems)), len(problems), problems)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_changed_lines(self, data: st.DataObject) -> None:
        lines = list(LINES)
        for _ in range(data.draw(st.integers(1, 4))):
            number = data.draw(st.integers(0, len(lines) - 1))
            other = data.draw(st.sampled_from(LINES))
            place = data.draw(st.integers(0, len(lines[number])))
            start, end = lines[number][:place], lines[number][place:]
            key = lines[number].partition("=")[0]
            lines[number : number + 1] = data.draw(
                st.sampled_from(
                    (
                        [],
                        [lines[number]] * 2,
                        [other],
                        [lines[number], other],
                        [start],
                        [start + end[1:]],
                        [start + data.draw(_TEXTS) + end],
                        [key + "=" + other.partition("=")[2]],
                        [key + "=" + toml(data.draw(_ODD))],
                    )
                )
            ) or ["# gone"]
        self.answered("\n".join(lines) + "\n")

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.sampled_from(PLACES), _ODD), min_size=1, max_size=4), st.booleans()
    )
    def test_values_of_other_types(
        self, changes: list[tuple[tuple[Any, ...], Any]], inline: bool
    ) -> None:
        content = tomllib.loads(GOOD)
        for path, value in changes:
            parent: Any = content
            try:
                for part in path[:-1]:
                    parent = parent[part]
                parent[path[-1]]
            except (KeyError, IndexError, TypeError):
                continue  # Something else has taken its place.
            if isinstance(parent, (dict, list)):
                parent[path[-1]] = value
        self.answered("".join(f"{toml(key)} = {toml(one)}\n" for key, one in content.items()))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.dictionaries(
            st.sampled_from(("frontend", "pool", "admin", "state", "demo")),
            st.recursive(
                _ODD | st.dictionaries(st.sampled_from(KEYS), _ODD, max_size=4),
                lambda inner: st.lists(
                    st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_size=3
                ),
                max_leaves=6,
            ),
        )
    )
    def test_anything_at_all(self, content: dict[str, Any]) -> None:
        self.answered("".join(f"{key} = {toml(one)}\n" for key, one in content.items()))
