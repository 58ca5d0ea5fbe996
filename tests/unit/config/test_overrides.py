"""Options that override the configuration file."""

from __future__ import annotations

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    FrontendTimeouts,
    HealthCheckSettings,
    PoolTimeouts,
    SecretSource,
    ServerSettings,
)
from tests.helpers.config import (
    FULL_FILE,
    ONE_POOL,
    TWO_FRONTENDS,
    ConfigFileTestCase,
    option_problems,
)


class OverrideTests(ConfigFileTestCase):
    """An option replaces the value of the file."""

    def test_ambiguous_options(self) -> None:
        """`--bind` needs one frontend in the file, `--upstream` and `--hosts` one pool."""
        for arguments, parts in (
            (("-b", "c:1"), ["--bind", "several frontends"]),
            (("-u", "c:1"), ["--upstream", "several pools"]),
            (("--hosts", self.write("c:1\n", "hosts")), ["--hosts", "several pools"]),
        ):
            (problem,) = self.option_problems(TWO_FRONTENDS, *arguments)
            for part in parts:
                self.assertIn(part, problem)
        problems = self.option_problems(TWO_FRONTENDS, "-b", "c:1", "-u", "c:1")
        self.assertEqual(len(problems), 2)

    def test_one_frontend_and_one_pool(self) -> None:
        """`--bind` and `--upstream` replace the lists of the file."""
        settings = self.parse(
            '[frontend]\nname="x"\nbind="a:1"\n' + ONE_POOL, "-b", "b:2", "-b", "c:3", "-u", "d:4"
        )
        (frontend,), (pool,) = settings.frontends, settings.pools
        self.assertEqual(frontend.bind, (TcpAddress("b", 2), TcpAddress("c", 3)))
        self.assertEqual(frontend.name, "x")
        self.assertEqual(pool.servers, (ServerSettings(TcpAddress("d", 4)),))

    def test_all_frontends_and_pools(self) -> None:
        """Other options change all frontends or all pools."""
        settings = self.parse(
            TWO_FRONTENDS,
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

    def test_file_without_servers(self) -> None:
        """The error for an empty file names the file."""
        for text in ("", "# none\n", "drain_timeout = 1\n"):
            path = self.write(text)
            (problem,) = option_problems("-c", path)
            self.assertEqual(
                problem, f"{path}: no servers: expected --upstream host:port (or --demo 3)"
            )

    def test_byte_order_mark(self) -> None:
        """A file that begins with a byte order mark is read; lines count as without."""
        text = "\ufeff[[frontend]]\nbind = '8080'\n"
        settings = self.parse(text, "-u", "a:1")
        self.assertEqual(settings.frontends[0].bind, (TcpAddress("0.0.0.0", 8080),))
        self.assert_each_mistake([("\ufeffdemos = 1\n", 1, ["demo?"])])

    def test_every_option_overrides_its_key(self) -> None:
        """Each option replaces its key of the file; the other keys stay."""
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
            "--active-health-check-status=200-499",
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
        self.assertEqual(pool.active, HealthCheckSettings("/z", 9, fall=9, status=(200, 499)))

    def test_missing_options_change_nothing(self) -> None:
        """An option enables checks with the path "/", and keeps the path of existing checks."""
        self.write("x", "token")
        text = FULL_FILE.replace("/etc/balancebeam", self.folder)
        before = self.load(text)
        settings = self.parse(text, "-t", "4")
        self.assertEqual(settings.frontends, before.frontends)
        checks = [pool.active for pool in settings.pools]
        self.assertEqual(
            checks,
            [
                HealthCheckSettings("/health", 4, 2, 2, 2),
                HealthCheckSettings("/", 4),
                HealthCheckSettings(None, 4),
            ],
        )

    def test_admin_listener(self) -> None:
        """The options for the admin listener override the file, mistakes included."""
        token = self.write("x", "token")
        # Each of these files is invalid without the option.
        self.parse("[admin]\nbind='0.0.0.0:1'\n", "--admin", "127.0.0.1:1")
        self.parse("[admin]\nbind='0.0.0.0:1'\n", "--admin-token-file", token)
        self.parse("[admin]\ntoken_file='/nonexistent'\n", "--admin-token-file", token)
        for text, arguments, parts in (
            (ONE_POOL, ("--admin", "0.0.0.0:1"), ["--admin: 0.0.0.0:1", "token"]),
            (ONE_POOL, ("--admin", "x"), ["--admin: invalid address 'x'"]),
            (
                ONE_POOL,
                ("--admin", "x", "--admin-token-file", token),
                ["--admin: invalid address 'x'"],
            ),
            (ONE_POOL, ("--admin-token-file", token), ["--admin-token-file", "--admin ADDR"]),
            ("[admin]\n", ("--admin-token-file", "/none"), ["--admin-token-file: /none: cannot"]),
        ):
            (problem,) = self.option_problems(text, *arguments)
            for part in parts:
                self.assertIn(part, problem)

    def test_mode(self) -> None:
        """`--mode` changes all frontends, and keys of the other mode are reported."""
        text = "[frontend]\n{}\n" + ONE_POOL + "health={{interval=3}}\n"
        settings = self.parse(text.format(""), "-m", "tcp")
        self.assertEqual(settings.frontends[0].mode, "tcp")
        self.assertEqual(settings.pools[0].active, HealthCheckSettings(None, 3))
        settings = self.parse(text.format("mode='tcp'\nlog_connections=true"), "-m", "http")
        self.assertEqual(settings.frontends[0], FrontendSettings())
        self.assertEqual(settings.pools[0].active, HealthCheckSettings("/health", 3))
        for key, part in (
            ("max_body=1", "max_body"),
            ("registration=true", "registration"),
            ("forwarding.forwarded=true", "forwarding"),
            ("route={path='/', pool='app'}", "path"),
            ("limit={requests=1, key='host'}", '"client"'),
        ):
            (problem,) = self.option_problems(text.format(key), "-m", "tcp")
            self.assertIn(part, problem)
