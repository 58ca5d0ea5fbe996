"""The configuration file: what it says, what is wrong with it, and what wins over it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.toml_file import finalize, load_file
from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    FrontendTimeouts,
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    RetrySettings,
    RouteSettings,
    SecretSource,
    ServerSettings,
    Settings,
)
from balancebeam.process.options import CommandLineOptions as Options

WHOLE = """\
state = "/var/lib/balancebeam"
drain_timeout = 20
demo = 2

[[frontend]]
name = "web"
bind = ["0.0.0.0:1100"]
mode = "http"                      # or "tcp"
pool = "app"                       # where requests go that no route takes
trusted_proxies = ["10.0.0.0/8"]
max_body = "1GiB"                  # none by default

registration = false               # and registration_from = ["10.1.0.0/16"]
access_log = "-"                   # access_log_format = "combined" | "json"

[[frontend.route]]                 # the first that matches
host = "api.example.org"           # or "*.example.org"
path = "/v1"
pool = "api"

[[frontend.limit]]
algorithm = "token-bucket"
requests = 600
per = 60
burst = 50
key = "client"
ipv6_prefix = 64
dry_run = false

[frontend.timeouts]
header = 10
idle = 60

[[frontend]]
name = "db"
bind = "unix:/run/db"
mode = "tcp"
pool = "db"

[[pool]]
name = "app"
algorithm = "power-of-two"
upstreams = [
    "127.0.0.1:8080",
    {address = "127.0.0.1:8081", weight = 5, max_in_flight = 200, backup = false},
]
timeouts = {connect = 5, upstream = 60}

[pool.health]
path = "/health"
interval = 10
timeout = 2
fall = 2
rise = 2
status = "200-299"

[pool.passive]
failures = 1
cooldown = 10

[pool.retries]
attempts = 3
budget = 0.2

[[pool]]
name = "api"
upstreams = ["[::1]:80,weight=0"]
[[pool.limit]]
algorithm = "concurrent"
requests = 5
key = ["header:X-Api-Key", "host"]

[[pool]]
name = "db"
upstreams = ["127.0.0.1:5432"]
health = {interval = 3}

[admin]
bind = "127.0.0.1:1101"
token_file = "/etc/balancebeam/token"
"""

EXPECTED = Settings(
    (
        FrontendSettings(
            name="web",
            pool="app",
            trusted_proxies=("10.0.0.0/8",),
            max_body=1 << 30,
            access_log="-",
            routes=(RouteSettings("api", "api.example.org", "/v1"),),
            limits=(LimitSettings(600, 60.0, "token-bucket", 50),),
            timeouts=FrontendTimeouts(10.0, 60.0),
        ),
        FrontendSettings(name="db", bind=(UnixAddress("/run/db"),), mode="tcp", pool="db"),
    ),
    (
        PoolSettings(
            name="app",
            servers=(
                ServerSettings(TcpAddress("127.0.0.1", 8080)),
                ServerSettings(TcpAddress("127.0.0.1", 8081), 5, False, 200),
            ),
            algorithm="power-of-two",
            timeouts=PoolTimeouts(5.0, 60.0),
            active=HealthCheckSettings("/health", 10.0, 2.0, 2, 2, (200, 299)),
            passive=OutlierDetectionSettings(1, 10.0),
            retries=RetrySettings(3, 0.2),
        ),
        PoolSettings(
            name="api",
            servers=(ServerSettings(TcpAddress("::1", 80), 0),),
            limits=(LimitSettings(5, algorithm="concurrent", key=("header:X-Api-Key", "host")),),
        ),
        PoolSettings(
            name="db",
            servers=(ServerSettings(TcpAddress("127.0.0.1", 5432)),),
            active=HealthCheckSettings(None, 3.0),
        ),
    ),
    AdminSettings(TcpAddress("127.0.0.1", 1101), SecretSource(file="/etc/balancebeam/token")),
    "/var/lib/balancebeam",
    20.0,
    2,
)

POOL = '[[pool]]\nupstreams = ["a:1"]\n'

TWO = """\
[[frontend]]
name = "one"
bind = "127.0.0.1:1"
pool = "app"
[[frontend]]
name = "two"
bind = "127.0.0.1:2"
pool = "other"
[[pool]]
name = "app"
upstreams = ["a:1"]
[[pool]]
name = "other"
upstreams = ["b:1"]
algorithm = "random"
"""


class TomlFileTestCase(SynchronousTestCase):
    """A folder with a configuration file."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "balancebeam.toml")

    def write(self, text: str, name: str = "balancebeam.toml") -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return path

    def read(self, text: str) -> Settings:
        settings, problems = load_file(self.write(text))
        self.assertEqual(problems, [])
        return finalize(settings)

    def problems(self, text: str) -> list[str]:
        """What is wrong with a file, without its name."""
        _, problems = load_file(self.write(text))
        for problem in problems:
            self.assertTrue(problem.startswith(self.path + ":"), problem)
        return [problem[len(self.path) + 1 :] for problem in problems]

    def parse(self, text: str, *arguments: str) -> Settings:
        options = Options()
        options.parseOptions(["-c", self.write(text), *arguments])
        return options.settings

    def mistakes(self, text: str, *arguments: str) -> list[str]:
        """What is wrong with a file and these options."""
        error = self.assertRaises(ConfigError, self.parse, text, *arguments)
        self.assertTrue(error.problems)
        return [problem.replace(self.path + ":", "") for problem in error.problems]


class ValidFileTests(TomlFileTestCase):
    """What is understood."""

    def test_everything(self) -> None:
        self.assertEqual(self.read(WHOLE), EXPECTED)
        self.assertEqual(self.read(WHOLE.replace("\n", "\r\n")), EXPECTED)

    def test_defaults(self) -> None:
        usual = Settings((FrontendSettings(),), (PoolSettings(),))
        self.assertEqual(self.read(""), usual)
        self.assertEqual(self.read("[[frontend]]\n[[pool]]\n"), usual)
        self.assertEqual(self.read("[frontend]\n[pool]\n"), usual)
        (frontend,), (pool,) = usual.frontends, usual.pools
        self.assertEqual(frontend.bind, (TcpAddress("0.0.0.0", 1100),))
        self.assertEqual((frontend.mode, pool.algorithm), ("http", "round-robin"))
        self.assertEqual((pool.active, usual.admin, usual.state), (None, None, None))
        self.assertEqual((usual.drain_timeout, usual.demo), (30, 0))
        self.assertEqual((frontend.max_body, frontend.access_log), (None, None))
        active = self.read("[pool.health]\n").pools[0].active
        self.assertEqual(active, HealthCheckSettings("/health", 10.0, None, 2, 2, (200, 299)))
        admin = self.read("[admin]\n").admin
        self.assertEqual(admin, AdminSettings(TcpAddress("127.0.0.1", 1101)))
        limit = self.read("[frontend.limit]\nrequests = 5\n").frontends[0].limits[0]
        self.assertEqual(limit, LimitSettings(5))

    def test_one_pool_needs_no_choice(self) -> None:
        text = '[pool]\nname = "x"\n'
        self.assertEqual(self.read(text).frontends[0].pool, "x")
        self.assertEqual(self.read(text + "[frontend]\n").frontends[0].pool, "x")

    def test_one_table_or_several(self) -> None:
        for text in (
            "[frontend.limit]\nrequests = 5\n",
            "[[frontend.limit]]\nrequests = 5\n",
            "frontend = {limit = {requests = 5}}\n",
            "frontend = [{limit = [{requests = 5}]}]\n",
            "[[frontend]]\nlimit.requests = 5\n",
        ):
            self.assertEqual(self.read(text).frontends[0].limits, (LimitSettings(5),), text)

    def test_sizes(self) -> None:
        for text, octets in (
            ("1", 1),
            ('"1"', 1),
            ('"10B"', 10),
            ('"10k"', 10_000),
            ('"10 KB"', 10_000),
            ('"10KiB"', 10_240),
            ('"1mib"', 1 << 20),
            ('"2G"', 2 * 10**9),
            ('"1TiB"', 1 << 40),
        ):
            frontend = self.read(f"[frontend]\nmax_body = {text}\n").frontends[0]
            self.assertEqual(frontend.max_body, octets, text)

    def test_statuses(self) -> None:
        for text, expected in (
            ('"200-299"', (200, 299)),
            ('"204"', (204, 204)),
            ("204", (204, 204)),
            ('"100-599"', (100, 599)),
        ):
            checks = self.read(f"[pool.health]\nstatus = {text}\n").pools[0].active
            assert checks is not None
            self.assertEqual(checks.status, expected)

    def test_algorithms_have_all_their_names(self) -> None:
        for text, name in (("RR", "round-robin"), ("p2c", "power-of-two"), ("Random", "random")):
            self.assertEqual(self.read(f'[pool]\nalgorithm = "{text}"\n').pools[0].algorithm, name)

    def test_the_schema_of_s3(self) -> None:
        settings = self.parse(
            '[frontend]\nbind_on = "127.0.0.1:8080"\n[[frontend.backend]]\nforward_to = "b:1"\n'
        )
        (frontend,), (pool,) = settings.frontends, settings.pools
        self.assertEqual(frontend.bind, (TcpAddress("127.0.0.1", 8080),))
        self.assertEqual((frontend.mode, frontend.pool), ("tcp", pool.name))
        self.assertEqual(pool.servers, (ServerSettings(TcpAddress("b", 1)),))
        self.assertEqual(pool.algorithm, "round-robin")


class IgnoredKeyTests(SynchronousTestCase):
    """What has no meaning where it stands, and does no harm."""

    def test_keys_of_other_algorithms(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "a.toml")
        with open(path, "w") as file:
            # As the example in the contract has it.
            file.write("[frontend.limit]\nrequests = 600\nper = 60\nburst = 50\n")
            file.write("[[pool]]\nupstreams = ['a:1']\n[pool.limit]\n")
            file.write("algorithm = 'concurrent'\nrequests = 3\nper = 60\nburst = 2\n")
        settings, problems = load_file(path)
        self.assertEqual(problems, [])
        self.assertEqual(settings.frontends[0].limits[0].algorithm, "sliding-window")
        self.assertEqual(settings.pools[0].limits[0].requests, 3)


class InvalidFileTests(TomlFileTestCase):
    """Each mistake with its line, its key, and what would be right."""

    def test_single_mistakes(self) -> None:
        for text, line, words in (
            # Keys that there are not.
            ("demos = 1\n", 1, ["demos", "did you mean demo?"]),
            ("# x\n\n[[frontend]]\nbnid = 1\n", 4, ["frontend.bnid", "did you mean bind?"]),
            ("[frontend.timeouts]\n\nidel = 1\n", 3, ["frontend.timeouts.idel", "idle?"]),
            ("[frontend.timeouts]\nconnect = 1\n", 2, ["connect", "header, idle, tunnel"]),
            ("[frontend.limit]\nrequests = 1\nburts = 1\n", 3, ["frontend.limit.burts", "burst?"]),
            ('[frontend.route]\nhots="a"\nhost="a"\npool="app"\n', 2, ["route.hots", "host?"]),
            ("[frontend.forwarding]\nforwarder = true\n", 2, ["forwarder", "forwarded?"]),
            ("[[pool]]\n[[pool]]\nname = 'b'\nfall = 2\n", 4, ["pool.fall", "passive"]),
            ("[pool.health]\nrize = 2\n", 2, ["pool.health.rize", "rise?"]),
            ("[pool.passive]\nfailure = 2\n", 2, ["pool.passive.failure", "failures?"]),
            ("[pool.retries]\nattempt = 2\n", 2, ["pool.retries.attempt", "attempts?"]),
            ("[pool.queue]\nlimits = 2\n", 2, ["pool.queue.limits", "limit?"]),
            ("[pool.timeouts]\nconect = 2\n", 2, ["pool.timeouts.conect", "connect?"]),
            ("[admin]\ntokenfile = 'x'\n", 2, ["admin.tokenfile", "token_file?"]),
            ('[pool]\nupstreams = [\n"a:1",\n{address="b:1",wait=1}]\n', 4, ["upstreams.wait"]),
            ('"a\\nb" = 1\n', 1, ['"a\\nb"', "is not known"]),
            # Tables.
            ("frontend = 1\n", 1, ["frontend", "[[frontend]]"]),
            ("pool = [1]\n", 1, ["pool", "no table"]),
            ("[[frontend]]\ntimeouts = 5\n", 2, ["frontend.timeouts", "no table"]),
            ("[[frontend]]\nroute = [5]\n", 2, ["frontend.route", "no table"]),
            ("[[frontend]]\nmode = 'tcp'\nlimit = [5]\n", 3, ["frontend.limit", "no table"]),
            ("[pool]\nhealth = true\n", 2, ["pool.health", "no table"]),
            ("[[admin]]\n", 1, ["admin", "no table"]),
            # Values of a type that will not do.
            ("drain_timeout = '30'\n", 1, ["drain_timeout", "'30'", "seconds"]),
            ("drain_timeout = -1\n", 1, ["drain_timeout", "-1", "0 or more"]),
            ("drain_timeout = nan\n", 1, ["drain_timeout", "nan"]),
            ("demo = 101\n", 1, ["demo", "101", "0 to 100"]),
            ("demo = true\n", 1, ["demo", "true", "whole number"]),
            ("state = 1\n", 1, ["state", "quotes"]),
            ("[frontend]\nregistration = 'yes'\n", 2, ["frontend.registration", "true"]),
            ("[frontend]\nname = 'a b'\n", 2, ["frontend.name", "'a b'", "letters"]),
            ("[frontend]\nmode = 'udp'\n", 2, ["frontend.mode", "'udp'", "http, tcp"]),
            ("[frontend]\nbind = [\n'a:1',\n'nowhere']\n", 4, ["bind", "'nowhere'", "host:port"]),
            ("[frontend]\nbind = []\n", 2, ["frontend.bind", "needs an address"]),
            ("[frontend]\nbind = ['ssl:443']\n", 2, ["frontend.bind", "not supported yet"]),
            ("[frontend]\nallow = [\n'all']\n", 3, ["frontend.allow", "'all'", "CIDR"]),
            ("[frontend]\naccess_log_format = 'x'\n", 2, ["access_log_format", "combined, json"]),
            ("[frontend.timeouts]\nheader = 0\n", 2, ["timeouts.header", "more than 0"]),
            ("[frontend.timeouts]\nidle = 0x" + "f" * 9000, 2, ["timeouts.idle", "more than 0"]),
            # PyPy's reader of TOML itself takes less of this.
            *[("[frontend.timeouts]\nidle" + ".a" * 4000 + "=1", 2, ["idle", "more than 0"])]
            * (sys.implementation.name == "cpython"),
            ("[pool]\nupstreams = 'a:1'\n", 2, ["pool.upstreams", "no list"]),
            ("[pool]\nupstreams = [\n'a'\n]\n", 3, ["pool.upstreams", "'a'", "host:port"]),
            ("[pool]\nupstreams = [1]\n", 2, ["pool.upstreams", "quotes"]),
            ("[pool]\nupstreams = [{weight = 1}]\n", 2, ["upstreams", "needs an address"]),
            ("[pool]\nupstreams = [{address='a'}]\n", 2, ["address", "host:port"]),
            ("[pool]\nupstreams = [{address='a:1', weight=257}]\n", 2, ["weight", "0 to 256"]),
            ("[pool]\nupstreams = ['a:1,weight=-1']\n", 2, ["upstreams", "0 to 256"]),
            ("[pool]\nupstreams = ['a:1',\n{address='a:1'}]\n", 3, ["a:1 is given twice"]),
            ("[pool]\nupstreams = [\n'https://a']\n", 3, ["not supported yet"]),
            ("[pool]\nalgorithm = 'best'\n", 2, ["pool.algorithm", "'best'", "round-robin"]),
            ("[pool.retries]\nbudget = 2\n", 2, ["pool.retries.budget", "0 to 1"]),
            ("[pool.health]\npath = 'health'\n", 2, ["pool.health.path", "/health"]),
            # Sizes and statuses.
            ("[frontend]\nmax_body = '1 GiBi'\n", 2, ["max_body", "'1 GiBi'", '"10MB"']),
            ("[frontend]\nmax_body = 0\n", 2, ["frontend.max_body", "no size"]),
            ("[frontend]\nmax_body = '0k'\n", 2, ["frontend.max_body", "no size"]),
            ("[frontend]\nmax_body = 1.5\n", 2, ["frontend.max_body", "no size"]),
            ("[frontend]\nmax_body = '99999999TiB'\n", 2, ["frontend.max_body", "no size"]),
            ("[pool.health]\nstatus = '299-200'\n", 2, ["status", "'299-200'", '"200-299"']),
            ("[pool.health]\nstatus = '2xx'\n", 2, ["pool.health.status", '"200-299"']),
            ("[pool.health]\nstatus = 600\n", 2, ["pool.health.status", '"200-299"']),
            # Limits.
            ("[frontend.limit]\nper = 1\n", 1, ["frontend.limit", "needs requests"]),
            ("[frontend.limit]\nrequests = 0\n", 2, ["limit.requests", "from 1"]),
            ("[frontend.limit]\nrequests = 1\nper = 0\n", 3, ["limit.per", "more than 0"]),
            (
                "[frontend.limit]\nrequests = 1\nalgorithm = 'bucket'\nburst = 2\n",
                3,
                ["limit.algorithm", "'bucket'", "token-bucket"],
            ),
            ("[frontend.limit]\nrequests = 1\nkey = 'ip'\n", 3, ["limit.key", "'ip'", "client"]),
            ("[frontend.limit]\nrequests = 1\nkey = []\n", 3, ["limit.key", "such as client"]),
            ("[frontend.limit]\nrequests = 1\nkey = ['header:Via']\n", 3, ["limit.key", "via"]),
            ("[frontend.limit]\nrequests = 1\nkey = 'cli\u00e9nt'\n", 3, ["limit.key", "invalid"]),
            ("[frontend.limit]\nrequests = 1\nipv6_prefix = 0\n", 3, ["ipv6_prefix", "1 to 128"]),
            ("[frontend.limit]\nrequests = 1\nstatus = 200\n", 3, ["limit.status", "400 to 599"]),
            (
                "[frontend.limit]\nrequests = 1\nname = '\"'\n",
                1,
                ["frontend.limit", "invalid limit name"],
            ),
            ("[pool.limit]\nrequests = 1\nkey = 'x'\n", 3, ["pool.limit.key", "header:NAME"]),
            # Routes.
            ("[frontend.route]\nhost = 'a'\n", 1, ["frontend.route", "needs a pool"]),
            ("[frontend.route]\npool = 'app'\n", 1, ["route", "needs a host or a path"]),
            ("[frontend.route]\nhost='a b'\npool='app'\n", 2, ["route.host", "'a b'"]),
            ("[frontend.route]\npath='v1'\npool='app'\n", 2, ["route.path", "'v1'", "/v1"]),
            (
                "[[frontend.route]]\nhost='a'\npool='app'\n[[frontend.route]]\nhost='a'\n"
                "pool='app'\n",
                4,
                ["frontend.route", "already"],
            ),
            # References.
            ("[frontend]\npool = 'ap'\n" + POOL, 2, ["frontend.pool", "'ap'", "mean app?"]),
            ("[frontend]\n\npool = 'web'\n", 3, ["frontend.pool", "'web'", "there is app"]),
            ("[[frontend.route]]\nhost='a'\npool='apt'\n" + POOL, 3, ["'apt'", "mean app?"]),
            ("[frontend.route]\nhost='a'\npool='apt'\n" + POOL, 3, ["'apt'", "mean app?"]),
            (TWO.replace('"other"\n[', '"othr"\n['), 8, ["pool", "'othr'", "mean other?"]),
            # Names and addresses.
            (TWO.replace('"two"', '"one"'), 6, ["frontend.name", "'one' already"]),
            (TWO.replace('name = "other"', "").replace('"other"', '"app"'), 12, ["needs a name"]),
            (TWO + '[[pool]]\nname = "app"\n', 17, ["pool.name", "'app' already"]),
            (TWO.replace("0.1:2", "0.1:1"), 7, ["frontend.bind", "127.0.0.1:1 is given twice"]),
            ("[frontend]\nbind = ['a:1', 'a:1']\n", 2, ["frontend.bind", "twice"]),
            (TWO + '[admin]\nbind = "127.0.0.1:2"\n', 17, ["admin.bind", "frontend's already"]),
            ("[frontend]\nbind=['unix:/a\\n', 'unix:/a\\n']\n".replace("'", '"'), 2, ["twice"]),
            # Modes.
            (
                TWO.replace('"two"', '"two"\nmode = "tcp"').replace('"other"', '"app"', 1),
                9,
                ["app"],
            ),
            (
                TWO.replace('"two"', '"two"\nmode = "tcp"\nroute = {host="a", pool="app"}'),
                8,
                ["frontend.route.pool", "'app'", "HTTP or for TCP"],
            ),
            ("[frontend]\nmode='tcp'\nmax_body=5\n", 3, ["frontend.max_body", "http"]),
            ("[frontend]\nmode='tcp'\nregistration=true\n", 3, ["frontend.registration", "http"]),
            ("[frontend]\nmode='tcp'\n[frontend.forwarding]\n", 3, ["forwarding", "http"]),
            ("[frontend]\nmode='tcp'\nregistration_from=[]\n", 3, ["registration_from", "http"]),
            ("[frontend]\nlog_connections=true\n", 2, ["log_connections", "tcp", "access_log"]),
            (
                "[frontend]\nmode='tcp'\n[frontend.route]\nhost='a'\npath='/'\npool='app'\n",
                5,
                ["frontend.route.path", "http"],
            ),
            (
                "[frontend]\nmode='tcp'\n[[frontend.limit]]\nrequests=1\n"
                "[[frontend.limit]]\nrequests=1\nkey='host'\n",
                7,
                ["frontend.limit.key", "host", '"client"'],
            ),
            (
                "[frontend]\nmode='tcp'\n[frontend.route]\nhost='a'\npool='app'\n"
                "[frontend.route.limit]\nrequests=1\nkey=[\n'client',\n'header:a']\n",
                8,
                ["frontend.route.limit.key", "header:a", '"client"'],
            ),
            (
                "[frontend]\nmode='tcp'\n[pool]\nlimit = {requests=1, key='host'}\n",
                4,
                ["pool.limit.key", "host", '"client"'],
            ),
            ("[frontend]\nmode='tcp'\n[pool.health]\npath='/'\n", 4, ["pool.health.path", "TCP"]),
            ("[frontend]\nmode='tcp'\n[pool]\nhealth=5\n", 4, ["pool.health", "no table"]),
            # The admin listener.
            ("[admin]\nbind = 'x'\n", 2, ["admin.bind", "'x'", "host:port"]),
            ("[admin]\ntoken = ''\n", 2, ["admin.token", "no token", '{env = "NAME"}']),
            ("[admin]\ntoken = {evn = 'A'}\n", 2, ["admin.token", '{env = "NAME"}']),
            ("[admin]\ntoken = 'a'\ntoken_file = 'b'\n", 3, ["admin.token_file", "already"]),
            # What is no TOML.
            ("[frontend]\nbind = x\n", 2, ["is no TOML"]),
            ("[frontend]\na = 1\na = 2\n", 3, ["is no TOML"]),
            # Python bounds the digits of a number since 3.11.
            *[("a = " + "1" * 5000 + "\n", None, ["cannot be read"])]
            * (sys.version_info >= (3, 11)),
        ):
            with self.subTest(text):
                (problem,) = self.problems(text)
                if line is not None:
                    self.assertEqual(problem.partition(":")[0], str(line), problem)
                for word in words:
                    self.assertIn(word, problem)
                self.assertEqual(problem.splitlines(), [problem])

    def test_mistakes_of_the_whole(self) -> None:
        empty, binary = self.write(" \n", "empty"), self.write("\x00\x01", "binary")
        missing = os.path.join(self.folder, "missing")
        self.patch(os, "environ", {**os.environ, "BB_EMPTY": "", "BB_ODD": "\udcff"})
        for text, line, words in (
            ("[admin]\n\nbind='0.0.0.0:1'\n" + POOL, 3, ["admin.bind", "needs a token"]),
            (f"[admin]\ntoken_file='{missing}'\n", 2, ["admin.token_file", missing, "No such"]),
            (f"[admin]\ntoken_file='{empty}'\n", 2, ["admin.token_file", empty, "is empty"]),
            (f"[admin]\ntoken_file='{binary}'\n", 2, ["admin.token_file", binary, "one word"]),
            (f"[admin]\ntoken_file='{self.folder}'\n", 2, ["admin.token_file", "directory"]),
            ('[admin]\ntoken_file="a\\u0000"\n', 2, ["admin.token_file", "no path of a file"]),
            ("[admin]\ntoken={env='BB_MISSING'}\n", 2, ["admin.token", "no variable BB_MISSING"]),
            ("[admin]\ntoken={env='BB_EMPTY'}\n", 2, ["admin.token", "BB_EMPTY is empty"]),
            ("[admin]\ntoken={env='BB_ODD'}\n", 2, ["admin.token", "BB_ODD", "one word"]),
            ("[admin]\ntoken='two words'\n", 2, ["admin.token", "one word"]),
            (POOL + "[[pool]]\nname='b'\n", 3, ["pool b", "no upstreams"]),
            ("[[pool]]\n", 1, ["pool app", "no upstreams"]),
            ("demo=1\n[frontend]\n" + POOL + "[[pool]]\nname='b'\n", 5, ["pool b"]),
        ):
            with self.subTest(text):
                (problem,) = self.mistakes(text)
                self.assertEqual(problem.partition(":")[0], str(line), problem)
                for word in words:
                    self.assertIn(word, problem)
                for secret in ("two words", "udcff", "\x01"):
                    self.assertNotIn(secret, problem)
        (problem,) = self.mistakes("")
        self.assertIn("--upstream", problem)

    def test_tokens_that_are_there(self) -> None:
        with mock.patch.dict(os.environ, {"BB_TOKEN": "s3cret"}):
            settings = self.parse("[admin]\nbind='0.0.0.0:1'\ntoken={env='BB_TOKEN'}\n")
        assert settings.admin is not None
        self.assertEqual(settings.admin.token, SecretSource(variable="BB_TOKEN"))
        self.assertNotIn("s3cret", repr(settings))
        path = self.write("s3cret\n", "token")
        settings = self.parse(f"[admin]\nbind='0.0.0.0:1'\ntoken_file='{path}'\n")
        assert settings.admin is not None
        self.assertEqual(settings.admin.token, SecretSource(file=path))
        for local in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/x"):
            self.parse(f"[admin]\nbind='{local}'\n")

    def test_all_at_once(self) -> None:
        text = WHOLE
        for old, new in (
            ("drain_timeout = 20", "drain_timeout = -1"),
            ("0.0.0.0:1100", "0.0.0.0"),
            ('path = "/v1"', 'path = "v1"'),
            ('pool = "api"', 'pool = "apu"'),
            ("burst = 50", "brust = 50"),
            ('mode = "tcp"\n', 'mode = "tcp"\nmax_body = 5\n'),
            ("weight = 5", "weight = 500"),
            ('"[::1]:80,weight=0"', '"[::1]:80,weight=x"'),
            ("fall = 2", "fall = 0"),
            ("budget = 0.2", "budget = 20"),
        ):
            self.assertEqual(text.count(old), 1)
            text = text.replace(old, new)
        problems = self.problems(text)
        lines = [int(problem.partition(":")[0]) for problem in problems]
        keys = sorted(zip(lines, (problem.split(": ")[1].split(" ")[0] for problem in problems)))
        self.assertEqual(
            keys,
            [
                (2, "drain_timeout"),
                (7, "frontend.bind"),
                (18, "frontend.route.path"),
                (19, "frontend.route.pool"),
                (25, "frontend.limit.brust"),
                (38, "frontend.max_body"),
                (46, "pool.upstreams.weight"),
                (54, "pool.health.fall"),
                (64, "pool.retries.budget"),
                (68, "pool.upstreams"),
            ],
        )
        # So are those of the command line, and the token that is not there.
        mistakes = self.mistakes(text, "-b", "x", "--demo", "many", "--cooldown", "soon")
        self.assertEqual(len(mistakes), len(problems) + 4 + 1, mistakes)
        self.assertTrue(any("admin.token_file: /etc/balance" in one for one in mistakes), mistakes)

    def test_what_cannot_be_read(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"\xff")
        for path, words in (
            (self.path, "not UTF-8"),
            (self.folder, "directory"),
            (self.path + "x", "No such file"),
            (self.write("a = " + "[" * 100_000, "deep"), "nests too deep"),
        ):
            _, (problem,) = load_file(path)
            self.assertTrue(problem.startswith(f"{path}: cannot be read: "), problem)
            self.assertIn(words, problem)


class OverrideTests(TomlFileTestCase):
    """An option wins over the file."""

    def test_what_is_ambiguous(self) -> None:
        for arguments, words in (
            (("-b", "c:1"), ["--bind", "several frontends"]),
            (("-u", "c:1"), ["--upstream", "several pools"]),
            (("--hosts", self.write("c:1\n", "hosts")), ["--hosts", "several pools"]),
        ):
            (problem,) = self.mistakes(TWO, *arguments)
            for word in words:
                self.assertIn(word, problem)
        self.assertEqual(len(self.mistakes(TWO, "-b", "c:1", "-u", "c:1")), 2)

    def test_one_frontend_and_one_pool(self) -> None:
        settings = self.parse(
            '[frontend]\nname="x"\nbind="a:1"\n' + POOL, "-b", "b:2", "-b", "c:3", "-u", "d:4"
        )
        (frontend,), (pool,) = settings.frontends, settings.pools
        self.assertEqual(frontend.bind, (TcpAddress("b", 2), TcpAddress("c", 3)))
        self.assertEqual(frontend.name, "x")
        self.assertEqual(pool.servers, (ServerSettings(TcpAddress("d", 4)),))

    def test_all_pools_and_frontends(self) -> None:
        settings = self.parse(
            TWO,
            *("--algorithm", "LC", "--connect-timeout=1", "--upstream-timeout=2"),
            *("--header-timeout=3", "--idle-timeout=4", "--tunnel-timeout=5", "--cooldown=6"),
            *("--active-health-check-path=/x", "-t", "7", "--trusted-proxy=10.0.0.0/8"),
            *("--max-requests-per-minute=8", "--access-log=-", "--access-log-format=json"),
        )
        for pool in settings.pools:
            self.assertEqual(pool.algorithm, "least-connections")
            self.assertEqual(pool.timeouts, PoolTimeouts(1, 2))
            self.assertEqual(pool.passive.cooldown, 6)
            self.assertEqual(pool.active, HealthCheckSettings("/x", 7))
        for frontend in settings.frontends:
            self.assertEqual(frontend.timeouts, FrontendTimeouts(3, 4, 5))
            self.assertEqual(frontend.trusted_proxies, ("10.0.0.0/8",))
            self.assertEqual([limit.requests for limit in frontend.limits], [8])
            self.assertEqual((frontend.access_log, frontend.access_log_format), ("-", "json"))

    def test_each_wins(self) -> None:
        text = (
            "state='/a'\ndrain_timeout=1\ndemo=1\n[frontend]\nregistration=true\n"
            "registration_from=['10.0.0.0/8']\naccess_log='/b'\naccess_log_format='json'\n"
            "trusted_proxies=['10.0.0.0/8']\ntimeouts={header=1, idle=1, tunnel=1}\n"
            "[pool]\nalgorithm='random'\nupstreams=['a:1']\ntimeouts={connect=1, upstream=1}\n"
            "health={path='/a', interval=1, fall=9}\npassive.cooldown=1\n"
            "[admin]\nbind='127.0.0.1:1'\ntoken='x'\n"
        )
        token = self.write("y", "token")
        settings = self.parse(
            text,
            *("--state=/z", "--drain-timeout=9", "--demo=0", "--admin=127.0.0.1:9", "-a", "srr"),
            *("--admin-token-file", token, "--registration-from=10.9.0.0/16", "--access-log=/z"),
            *("--access-log-format=combined", "--trusted-proxy=10.9.0.0/16", "--idle-timeout=9"),
            *("--header-timeout=9", "--tunnel-timeout=0", "--connect-timeout=9"),
            *("--upstream-timeout=9", "--cooldown=0", "-t9", "--active-health-check-path=/z"),
        )
        (frontend,), (pool,) = settings.frontends, settings.pools
        self.assertEqual((settings.state, settings.drain_timeout, settings.demo), ("/z", 9, 0))
        self.assertEqual(
            settings.admin, AdminSettings(TcpAddress("127.0.0.1", 9), SecretSource(file=token))
        )
        self.assertEqual(frontend.registration_from, ("10.9.0.0/16",))
        self.assertTrue(frontend.registration)
        self.assertEqual((frontend.access_log, frontend.access_log_format), ("/z", "combined"))
        self.assertEqual(frontend.trusted_proxies, ("10.9.0.0/16",))
        self.assertEqual(frontend.timeouts, FrontendTimeouts(9, 9, 0))
        self.assertEqual(pool.timeouts, PoolTimeouts(9, 9))
        self.assertEqual(pool.algorithm, "sticky-round-robin")
        self.assertEqual(pool.passive.cooldown, 0)
        self.assertEqual(pool.active, HealthCheckSettings("/z", 9, fall=9))

    def test_what_is_not_given_stays(self) -> None:
        self.write("x", "token")
        text = WHOLE.replace("/etc/balancebeam", self.folder)
        settings = self.parse(text, "-t", "4")
        self.assertEqual(settings.frontends, EXPECTED.frontends)
        checks = [pool.active for pool in settings.pools]
        self.assertEqual(
            checks,
            [
                HealthCheckSettings("/health", 4, 2, 2, 2),
                HealthCheckSettings("/", 4),
                HealthCheckSettings(None, 4),
            ],
        )

    def test_the_admin_listener(self) -> None:
        token = self.write("x", "token")
        # What is wrong in the file alone is mended by an option.
        self.parse("[admin]\nbind='0.0.0.0:1'\n", "--admin", "127.0.0.1:1")
        self.parse("[admin]\nbind='0.0.0.0:1'\n", "--admin-token-file", token)
        self.parse("[admin]\ntoken_file='/nonexistent'\n", "--admin-token-file", token)
        for text, arguments, words in (
            (POOL, ("--admin", "0.0.0.0:1"), ["--admin: 0.0.0.0:1", "token"]),
            (POOL, ("--admin", "x"), ["--admin: 'x'"]),
            (POOL, ("--admin", "x", "--admin-token-file", token), ["--admin: 'x'"]),
            (POOL, ("--admin-token-file", token), ["--admin-token-file", "--admin ADDR"]),
            ("[admin]\n", ("--admin-token-file", "/none"), ["--admin-token-file: /none: cannot"]),
        ):
            (problem,) = self.mistakes(text, *arguments)
            for word in words:
                self.assertIn(word, problem)

    def test_another_mode(self) -> None:
        text = "[frontend]\n{}\n" + POOL + "health={{interval=3}}\n"
        settings = self.parse(text.format(""), "-m", "tcp")
        self.assertEqual(settings.frontends[0].mode, "tcp")
        self.assertEqual(settings.pools[0].active, HealthCheckSettings(None, 3))
        settings = self.parse(text.format("mode='tcp'\nlog_connections=true"), "-m", "http")
        self.assertEqual(settings.frontends[0], FrontendSettings())
        self.assertEqual(settings.pools[0].active, HealthCheckSettings("/health", 3))
        for key, words in (
            ("max_body=1", "max_body"),
            ("registration=true", "registration"),
            ("forwarding.forwarded=true", "forwarding"),
            ("route={path='/', pool='app'}", "path"),
            ("limit={requests=1, key='host'}", '"client"'),
        ):
            (problem,) = self.mistakes(text.format(key), "-m", "tcp")
            self.assertIn(words, problem)


class CheckOptionTests(TomlFileTestCase):
    """--check says what would be done."""

    def check(self, text: str, *arguments: str) -> tuple[Settings, str]:
        """What the options say, and what is printed."""
        options = Options()
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            done = self.assertRaises(
                SystemExit, options.parseOptions, ["-c", self.write(text), *arguments, "--check"]
            )
        self.assertEqual(done.code, 0)
        return options.settings, output.getvalue()

    def test_what_is_printed_reads_back(self) -> None:
        with mock.patch.dict(os.environ, {"BB_TOKEN": "s3cret"}):
            for text, arguments in (
                (
                    WHOLE.replace("token_file =", "token = {env = 'BB_TOKEN'} #"),
                    ("--idle-timeout=7", "--admin=localhost:1"),
                ),
                (TWO, ("--max-requests-per-minute=7", "--registration", "-t", "0.25")),
                (TWO, ("-m", "tcp", "-t", "3", "--tunnel-timeout=4")),
                (
                    "[frontend]\nbind_on='a:1'\n[[frontend.backend]]\nforward_to='b:1'\n",
                    ("-u", "unix:/x,weight=3,backup,proxy=v2", "-b", "haproxy:unix:/y"),
                ),
                (
                    "[frontend]\nbind_on='a:1'\n[[frontend.backend]]\nforward_to='b:1'\n",
                    ("-mhttp",),
                ),
                ("", ("--demo", "3")),
                ("", ("-u", "http://unix:80")),
            ):
                settings, printed = self.check(text, *arguments)
                self.assertEqual(self.read(printed), settings)
                self.assertEqual(self.parse(printed), settings)
                self.assertEqual(self.check(printed), (settings, printed))
                self.assertNotIn("s3cret", printed)

    def test_mistakes(self) -> None:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.mistakes("demo = 'x'\n", "--check")
        self.assertEqual(output.getvalue(), "")
