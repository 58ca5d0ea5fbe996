"""The configuration file: settings, defaults, and mistakes with their lines."""

from __future__ import annotations

import os
import sys

from balancebeam.config.toml_file import load_file
from balancebeam.core.addresses import TcpAddress, UnixAddress
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
from tests.helpers.config import FULL_FILE, ConfigFileTestCase

FULL_SETTINGS = Settings(
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


class ValidFileTests(ConfigFileTestCase):
    """Settings of valid files."""

    def test_all_tables(self) -> None:
        """The example results in its settings, with either line ending."""
        self.assertEqual(self.load(FULL_FILE), FULL_SETTINGS)
        self.assertEqual(self.load(FULL_FILE.replace("\n", "\r\n")), FULL_SETTINGS)

    def test_defaults(self) -> None:
        """Missing tables and keys have their defaults."""
        defaults = Settings((FrontendSettings(),), (PoolSettings(),))
        self.assertEqual(self.load(""), defaults)
        self.assertEqual(self.load("[[frontend]]\n[[pool]]\n"), defaults)
        self.assertEqual(self.load("[frontend]\n[pool]\n"), defaults)
        (frontend,), (pool,) = defaults.frontends, defaults.pools
        self.assertEqual(frontend.bind, (TcpAddress("0.0.0.0", 1100),))
        self.assertEqual((frontend.mode, pool.algorithm), ("http", "round-robin"))
        self.assertEqual((pool.active, defaults.admin, defaults.state), (None, None, None))
        self.assertEqual((defaults.drain_timeout, defaults.demo), (30, 0))
        self.assertIsNone(defaults.handover_timeout)
        self.assertEqual((frontend.max_body, frontend.access_log), (None, None))
        active = self.load("[pool.health]\n").pools[0].active
        self.assertEqual(active, HealthCheckSettings("/health", 10.0, None, 2, 2, (200, 299)))
        admin = self.load("[admin]\n").admin
        self.assertEqual(admin, AdminSettings(TcpAddress("127.0.0.1", 1101)))
        limit = self.load("[frontend.limit]\nrequests = 5\n").frontends[0].limits[0]
        self.assertEqual(limit, LimitSettings(5))

    def test_only_pool_is_the_pool_of_all_frontends(self) -> None:
        """A frontend without `pool` uses the only pool, whatever its name."""
        text = '[pool]\nname = "x"\n'
        self.assertEqual(self.load(text).frontends[0].pool, "x")
        self.assertEqual(self.load(text + "[frontend]\n").frontends[0].pool, "x")

    def test_table_or_array_of_tables(self) -> None:
        """A single table and an array of tables are equivalent."""
        for text in (
            "[frontend.limit]\nrequests = 5\n",
            "[[frontend.limit]]\nrequests = 5\n",
            "frontend = {limit = {requests = 5}}\n",
            "frontend = [{limit = [{requests = 5}]}]\n",
            "[[frontend]]\nlimit.requests = 5\n",
        ):
            self.assertEqual(self.load(text).frontends[0].limits, (LimitSettings(5),), text)


class InvalidFileTests(ConfigFileTestCase):
    """Mistakes, each with file, line, key and what is expected."""

    def test_top_level(self) -> None:
        """Invalid values of top-level keys are reported."""
        self.assert_each_mistake(
            (
                ("drain_timeout = '30'\n", 1, ["drain_timeout", "'30'", "seconds"]),
                ("drain_timeout = -1\n", 1, ["drain_timeout", "-1", "0 or more"]),
                ("drain_timeout = nan\n", 1, ["drain_timeout", "nan"]),
                ("handover_timeout = -1\n", 1, ["handover_timeout", "-1", "0 or more"]),
                ("handover_timeout = 'none'\n", 1, ["handover_timeout", "'none'", "seconds"]),
                ("demo = 101\n", 1, ["demo", "101", "0 to 100"]),
                ("demo = true\n", 1, ["demo", "true", "whole number"]),
                ("state = 1\n", 1, ["state", "quotes"]),
            )
        )

    def test_admin(self) -> None:
        """Invalid values of the admin listener are reported, without the token."""
        self.assert_each_mistake(
            (
                ("[admin]\nbind = 'x'\n", 2, ["admin.bind", "'x'", "host:port"]),
                ("[admin]\ntoken = ''\n", 2, ["admin.token", "invalid token", '{env = "NAME"}']),
                ("[admin]\ntoken = {evn = 'A'}\n", 2, ["admin.token", '{env = "NAME"}']),
                (
                    "[admin]\ntoken = 'a'\ntoken_file = 'b'\n",
                    3,
                    ["admin.token_file", "either token or token_file"],
                ),
            )
        )

    def test_syntax(self) -> None:
        """Text that is not TOML is reported with the line."""
        self.assert_each_mistake(
            (
                ("[frontend]\nbind = x\n", 2, ["invalid TOML"]),
                ("[frontend]\na = 1\na = 2\n", 3, ["invalid TOML"]),
                # Python limits the digits of an integer since 3.11.
                *[("a = " + "1" * 5000 + "\n", None, ["cannot be read"])]
                * (sys.version_info >= (3, 11)),
            )
        )

    def test_all_mistakes_at_once(self) -> None:
        """One run reports all mistakes of the file, the options and the token."""
        text = FULL_FILE
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
        # Three invalid options, --bind for two frontends, and the missing token file.
        arguments = ("-b", "x", "--demo", "many", "--cooldown", "soon")
        all_problems = self.option_problems(text, *arguments)
        self.assertEqual(len(all_problems), len(problems) + 5, all_problems)
        self.assertTrue(
            any("admin.token_file: /etc/balance" in problem for problem in all_problems),
            all_problems,
        )

    def test_unreadable_files(self) -> None:
        """A file that cannot be read is reported with the reason."""
        self.write(b"\xff")
        for path, part in (
            (self.path, "not UTF-8"),
            (self.folder, "directory"),
            (self.path + "x", "no such file"),
            (self.write("a = " + "[" * 100_000, "deep"), "nested too deeply"),
        ):
            _, (problem,) = load_file(path)
            self.assertTrue(problem.startswith(f"{path}: cannot be read: "), problem)
            self.assertIn(part, problem)
        self.assertFalse(os.path.exists(self.path + "x"))
