"""Rules of TLS that concern several settings: certificates, redirects, schemes and names."""

from __future__ import annotations

from attrs import evolve

from balancebeam.api import single_pool_settings
from balancebeam.config.cross_checks import validate_settings
from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.settings import (
    AcmeSettings,
    FrontendSettings,
    FrontendTlsSettings,
    PoolSettings,
    PoolTlsSettings,
    ServerSettings,
    Settings,
)
from tests.helpers.config import ONE_POOL, TWO_FRONTENDS, ConfigFileTestCase

TLS = "[frontend.tls]\nself_signed = true\n"
REDIRECT = "[[frontend]]\nname = 'redirect'\nbind = ':80'\nredirect_https = true\n"


class FrontendRuleTests(ConfigFileTestCase):
    """`[frontend.tls]` and the mode of the frontend."""

    def test_client_auth(self) -> None:
        """`client_auth` needs `client_ca`, even if it is set to its default."""
        for value in ("require", "optional"):
            (problem,) = self.problems(TLS + f"client_auth = '{value}'\n")
            self.assertTrue(problem.startswith("3: frontend.tls.client_auth: "), problem)
            self.assertIn("expected client_ca", problem)
        self.assertEqual(self.problems(TLS + "client_auth = 'optional'\nclient_ca = 'a'\n"), [])

    def test_invalid_client_ca(self) -> None:
        """An invalid `client_ca` is the only mistake that is reported."""
        (problem,) = self.problems(TLS + "client_auth = 'optional'\nclient_ca = 1\n")
        self.assertIn("client_ca", problem)

    def test_protocols_of_the_mode(self) -> None:
        """HTTP frontends have only `h2` and `http/1.1`; TCP frontends have any protocol."""
        text = "[frontend]\nmode = '{}'\n" + TLS + "alpn = ['h2', 'http/1.1', 'smtp']\n"
        (problem,) = self.problems(text.format("http"))
        self.assertTrue(
            problem.startswith("5: frontend.tls.alpn: invalid protocol 'smtp'"), problem
        )
        self.assertEqual(self.problems(text.format("tcp")), [])

    def test_sources_of_certificates(self) -> None:
        """TLS needs a certificate, from the file or from the options."""
        text = ONE_POOL + "[frontend.tls]\nmin_version = '1.3'\n"
        (problem,) = self.option_problems(text)
        self.assertTrue(problem.startswith("3: frontend.tls: no certificates: expected"), problem)
        for arguments in (("--tls", "a.pem"), ("--tls-self-signed",), ("--acme", "a.b")):
            (frontend,) = self.parse(text, *arguments).frontends
            assert frontend.tls is not None
            self.assertEqual(frontend.tls.min_version, "1.3")
        (problem,) = self.option_problems(
            TWO_FRONTENDS.replace('pool = "other"', 'pool = "other"\n[frontend.tls]')
        )
        self.assertTrue(problem.startswith("9: frontend.tls: no certificates"), problem)

    def test_account_for_acme(self) -> None:
        """Names for ACME need an account."""
        text = ONE_POOL + "[frontend]\n[frontend.tls]\nacme = 'a.b'\n"
        (problem,) = self.option_problems(text)
        self.assertIn("4: frontend.tls.acme: no ACME account: expected a table [acme]", problem)
        self.parse(text + "[acme]\nstorage = '/x'\n")

    def test_settings_of_programs(self) -> None:
        """Settings without a file have the same rules; messages have the name of the frontend."""
        servers = (ServerSettings(TcpAddress("a", 1)),)
        for tls, account, part in (
            (FrontendTlsSettings(), None, "frontend web: tls: no certificates"),
            (FrontendTlsSettings(acme=("a",)), None, "frontend web: tls.acme: no ACME account"),
            (FrontendTlsSettings(acme=("a",), self_signed=True), AcmeSettings("/x"), ""),
            (
                FrontendTlsSettings(self_signed=True, client_auth="optional"),
                None,
                "frontend web: tls.client_auth: client_auth without CA",
            ),
            (
                FrontendTlsSettings(self_signed=True, alpn=("x",)),
                None,
                "frontend web: tls.alpn: invalid protocol 'x'",
            ),
        ):
            settings = evolve(single_pool_settings(servers, tls=tls), acme=account)
            problems = validate_settings(settings)
            self.assertEqual(len(problems), bool(part), problems)
            self.assertTrue(all(problem.startswith(part) for problem in problems), problems)


class RedirectTests(ConfigFileTestCase):
    """Frontends with `redirect_https`."""

    def test_no_pool_is_needed(self) -> None:
        """A file whose frontends only redirect needs no pool and no server."""
        text = REDIRECT + "[[frontend.limit]]\nrequests = 1\n"
        settings = self.parse(text)
        self.assertTrue(settings.frontends[0].redirect_https)
        self.assertEqual(settings.frontends[0].pool_names, ())
        _, printed = self.check(text)
        self.assertEqual(self.parse(printed), settings)

    def test_other_frontends_need_a_pool(self) -> None:
        """Beside a redirect, the rules for pools hold as ever."""
        text = REDIRECT + "[[frontend]]\n" + TLS
        (problem,) = self.option_problems(text)
        self.assertIn("no servers", problem)
        settings = self.parse(text + "[[pool]]\nname = 'main'\nupstreams = ['a:1']\n")
        self.assertEqual([item.pool for item in settings.frontends], ["app", "main"])
        self.assertEqual(settings.default_pool, "main")

    def test_default_pool_is_not_used(self) -> None:
        """The name of the default pool has no meaning for a redirect, nor has its mode."""
        tcp = "[[frontend]]\nmode = 'tcp'\n[[pool]]\nupstreams = ['tls://a:1']\n"
        settings = self.load(REDIRECT + tcp)
        self.assertEqual(settings.pool_mode("app"), "tcp")
        _, printed = self.check(REDIRECT + tcp)
        self.assertIn('"tls://a:1"', printed)
        two = TWO_FRONTENDS.replace('"app"', '"main"').replace("app", "main")
        self.assertEqual(self.problems(two + REDIRECT), [])

    def test_unused_keys(self) -> None:
        """Keys that a redirect does not use are mistakes, and so are TLS and TCP mode."""
        end = ONE_POOL + "name = 'app'\n"
        for text, line, part in (
            ("pool = 'app'\n", 5, "frontend.pool: not available with redirect_https"),
            ("[[frontend.route]]\nhost = 'a'\npool = 'app'\n", 5, "expected no routes"),
            (TLS, 5, "frontend.tls: not available with redirect_https"),
            ("registration = true\n", 5, "frontend.registration: not available"),
            ("registration_from = '::/0'\n", 5, "frontend.registration_from: not available"),
            ("mode = 'tcp'\n", 4, 'redirect_https: not available in mode "tcp"'),
        ):
            (problem,) = self.problems(REDIRECT + text + end)
            self.assertTrue(problem.startswith(f"{line}: "), problem)
            self.assertIn(part, problem)

    def test_settings_of_programs(self) -> None:
        """Settings without a file have the same rules."""
        redirect = FrontendSettings(redirect_https=True)
        self.assertEqual(validate_settings(Settings((redirect,), (PoolSettings(),))), [])
        wrong = evolve(redirect, pool="other", mode="tcp", tls=FrontendTlsSettings())
        problems = validate_settings(Settings((wrong,), (PoolSettings(),)))
        keys = ["redirect_https", "tls", "pool", "tls"]
        self.assertEqual([problem.split(": ")[1] for problem in problems], keys)


class PoolRuleTests(ConfigFileTestCase):
    """`[pool.tls]`, and the schemes of servers."""

    def test_schemes(self) -> None:
        """`https` is for HTTP frontends, `tls` for TCP frontends; the message has the other."""
        text = "[frontend]\nmode = '{}'\n[pool]\nupstreams = ['{}']\n"
        for mode, address, expected in (
            ("http", "tls://a:1", 'expected https://a:1 in mode "http"'),
            ("tcp", "https://a", 'expected tls://a:443 in mode "tcp"'),
        ):
            (problem,) = self.problems(text.format(mode, address))
            self.assertTrue(problem.startswith("4: pool.upstreams: "), problem)
            self.assertIn(expected, problem)
        for mode, address in (("http", "https://a"), ("tcp", "tls://a:1"), ("tcp", "http://a")):
            self.assertEqual(self.problems(text.format(mode, address)), [])

    def test_line_of_scheme(self) -> None:
        """The message has the line of the server, or that of the list if others are invalid."""
        text = "[pool]\nupstreams = [\n'a:1',\n'tls://b:1',\n{address = 'tls://c:1'},\n]\n"
        problems = self.problems("[frontend]\n" + text)
        self.assertEqual(
            [problem.partition(": invalid")[0] for problem in problems],
            ["5: pool.upstreams", "6: pool.upstreams"],
        )
        problems = self.problems("[frontend]\n" + text.replace("'a:1'", "'?'"))
        self.assertEqual(
            [problem.partition(":")[0] for problem in problems], ["4", "3", "3"], problems
        )

    def test_unix_sockets(self) -> None:
        """A Unix socket has no name to verify, so it needs `server_name`."""
        text = "[pool]\nupstreams = ['unix:/x', 'unix:/y']\n[pool.tls]\n"
        (problem,) = self.problems(text)
        self.assertIn("pool.tls.server_name: missing server_name", problem)
        self.assertIn("unix:/x", problem)
        for line in ("server_name = 'a'", "verify = false", "all_servers = false"):
            self.assertEqual(self.problems(text + line + "\n"), [])
        (problem,) = self.problems(text + "server_name = 1\n")
        self.assertIn("quotes", problem)

    def test_demo_servers(self) -> None:
        """Demo servers have no TLS, so their pool must not use it for all servers."""
        text = "demo = 1\n[pool]\n[pool.tls]\n"
        (problem,) = self.problems(text)
        self.assertTrue(problem.startswith("1: demo: demo servers have no TLS"), problem)
        self.assertEqual(self.problems(text + "all_servers = false\n"), [])
        (problem,) = self.option_problems("[pool]\n[pool.tls]\n", "--demo", "3")
        self.assertTrue(problem.startswith("demo: "), problem)

    def test_settings_of_programs(self) -> None:
        """`single_pool_settings` has both sides of TLS, with the same rules."""
        tls = PoolTlsSettings(ca="a")
        settings = single_pool_settings((ServerSettings(TcpAddress("a", 1)),), upstream_tls=tls)
        self.assertIs(settings.pools[0].tls, tls)
        self.assertEqual(validate_settings(settings), [])
        settings = single_pool_settings((ServerSettings(UnixAddress("/x")),), upstream_tls=tls)
        (problem,) = validate_settings(settings)
        self.assertTrue(problem.startswith("pool app: tls.server_name: missing"), problem)


class MiniBalancerTests(ConfigFileTestCase):
    """The file of mini-balancer."""

    def test_servers_with_tls(self) -> None:
        """Its servers may have `tls://`; `https://` is refused, as the mode is TCP."""
        text = "[frontend]\nbind_on='a:1'\n[[frontend.backend]]\nforward_to='{}'\n"
        (server,) = self.parse(text.format("tls://b:1")).pools[0].servers
        self.assertEqual(server, ServerSettings(TcpAddress("b", 1), tls=True))
        (problem,) = self.option_problems(text.format("https://b"))
        self.assertIn("expected tls://b:443", problem)
