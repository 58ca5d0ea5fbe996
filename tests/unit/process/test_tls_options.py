"""Options of TLS: certificates, ACME, redirects to `https`, and verification of servers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest import mock

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AcmeSettings,
    CertificateSource,
    FrontendSettings,
    FrontendTlsSettings,
    PoolTlsSettings,
    ServerSettings,
)
from balancebeam.process.tls_options import default_acme_storage
from tests.helpers.certificates import DAY, shared_authority
from tests.helpers.config import (
    ONE_POOL,
    TWO_FRONTENDS,
    ConfigFileTestCase,
    option_problems,
    parse_options,
)

SERVER = ("-u", "a:1")


def frontend_tls(*arguments: str) -> FrontendTlsSettings:
    """Return the settings of TLS of a frontend with these options."""
    tls = parse_options(*SERVER, *arguments).frontends[0].tls
    assert tls is not None
    return tls


class CertificateOptionTests(ConfigFileTestCase):
    """`--tls`, `--tls-self-signed`, `--acme` and `--acme-email`."""

    def test_certificates(self) -> None:
        """`--tls` is repeatable, and turns TLS on for the frontend."""
        self.assertIsNone(parse_options(*SERVER).frontends[0].tls)
        sources = (CertificateSource("/live/a"), CertificateSource("b.pem", "b.key"))
        tls = frontend_tls("--tls", "/live/a", "--tls", "b.pem,b.key")
        self.assertEqual(tls, FrontendTlsSettings(sources))
        twice = frontend_tls("--tls=a", "--tls=a")
        self.assertEqual(twice.certificates, (CertificateSource("a"),))

    def test_warnings_of_check(self) -> None:
        """`--check` reports certificates that expire soon, of frontends and of pools."""
        authority, folder = shared_authority(), Path(self.mktemp())
        folder.mkdir()
        for name, days in (("soon", 3), ("client", 4), ("late", 80)):
            issued = authority.issue(name, not_after=time.time() + days * DAY)
            (folder / f"{name}.pem").write_bytes(issued.chain)
            (folder / f"{name}.key").write_bytes(issued.key)
            (folder / f"{name}.key").chmod(0o600)
        pool_tls = f'[pool.tls]\ncert = "{folder}/client.pem"\nkey = "{folder}/client.key"\n'
        arguments = [f"--tls={folder}/{name}.pem,{folder}/{name}.key" for name in ("soon", "late")]
        self.check(ONE_POOL + pool_tls, *arguments)
        frontend, pool = self.warnings.getvalue().splitlines()
        self.assertRegex(frontend, "/soon.key: certificate expires on ")
        self.assertTrue(frontend.startswith("warning: frontend "), frontend)
        self.assertRegex(pool, "/client.pem.*: certificate expires on ")
        self.assertTrue(pool.startswith("warning: pool app: tls: "), pool)

    def test_self_signed(self) -> None:
        """`--tls-self-signed` needs no certificate, and may stand beside others."""
        self.assertEqual(frontend_tls("--tls-self-signed"), FrontendTlsSettings(self_signed=True))
        self.assertTrue(frontend_tls("--tls-self-signed", "--tls", "a").self_signed)

    def test_acme(self) -> None:
        """`--acme` has an account with a default directory of its own."""
        with (
            mock.patch.dict(os.environ, {"XDG_STATE_HOME": "/s"}),
            mock.patch.object(os, "geteuid", return_value=1000),
        ):
            settings = parse_options(
                *SERVER, "--acme", "A.example", "--acme", "b", "--acme-email", "a@b.c"
            )
        (frontend,) = settings.frontends
        self.assertEqual(frontend.tls, FrontendTlsSettings(acme=("a.example", "b")))
        self.assertEqual(settings.acme, AcmeSettings("/s/balancebeam/acme", email="a@b.c"))

    def test_default_storage(self) -> None:
        """The directory is that of the system for root, and that of the user for others."""
        self.assertEqual(default_acme_storage({"HOME": "/h"}, 0), "/var/lib/balancebeam/acme")
        cases: dict[str, dict[str, str]] = {
            "/s/balancebeam/acme": {"XDG_STATE_HOME": "/s", "HOME": "/h"},
            "/h/.local/state/balancebeam/acme": {"HOME": "/h"},
        }
        for path, environ in cases.items():
            self.assertEqual(default_acme_storage(environ, 1000), path)
        relative = default_acme_storage({"XDG_STATE_HOME": "s", "HOME": "/h"}, 1000)
        self.assertEqual(relative, "/h/.local/state/balancebeam/acme")
        self.assertTrue(os.path.isabs(default_acme_storage({}, 1000)))

    def test_file(self) -> None:
        """Options replace the lists of the file, and keep its other settings and its account."""
        settings = self.parse(
            "[frontend]\n[frontend.tls]\ncertificates='a'\nacme='a'\nstrict_sni=true\n"
            f"[acme]\nstorage='/x'\nemail='a@b'\n{ONE_POOL}",
            *("--tls", "b", "--acme", "c", "--acme-email", "d@e"),
        )
        expected = FrontendTlsSettings((CertificateSource("b"),), ("c",), strict_sni=True)
        self.assertEqual(settings.frontends[0].tls, expected)
        self.assertEqual(settings.acme, AcmeSettings("/x", email="d@e"))

    def test_account_for_the_names_of_the_file(self) -> None:
        """`--acme-email` adds an account for names in the file."""
        text = f"[frontend.tls]\nacme = 'a'\n{ONE_POOL}"
        acme = self.parse(text, "--acme-email", "a@b").acme
        assert acme is not None
        self.assertEqual(acme.email, "a@b")

    def test_ambiguous(self) -> None:
        """With several frontends the options are ambiguous; redirects do not count."""
        for arguments in (("--tls", "a"), ("--tls-self-signed",), ("--acme", "a")):
            (problem,) = self.option_problems(TWO_FRONTENDS, *arguments)
            self.assertTrue(problem.startswith(f"{arguments[0]}: ambiguous"), problem)
            self.assertIn("expected [frontend.tls] in the file", problem)
        text = f"{ONE_POOL}[[frontend]]\nredirect_https = true\nname='r'\nbind=80\n[[frontend]]\n"
        text = text.replace("bind=80", "bind='80'")
        redirect, web = self.parse(text, "--tls", "a", "-b", "b:1").frontends
        self.assertEqual((redirect.tls, redirect.bind), (None, (TcpAddress("0.0.0.0", 80),)))
        self.assertEqual(web.tls, FrontendTlsSettings((CertificateSource("a"),)))
        self.assertEqual(web.bind, (TcpAddress("b", 1),))

    def test_other_options_and_redirects(self) -> None:
        """`--mode` and `--registration` do not apply to a redirect."""
        text = f"{ONE_POOL}[[frontend]]\nredirect_https = true\nname='r'\nbind='80'\n[[frontend]]\n"
        redirect, web = self.parse(text, "--mode", "tcp").frontends
        self.assertEqual((redirect.mode, web.mode), ("http", "tcp"))
        redirect, web = self.parse(text, "--registration").frontends
        self.assertEqual((redirect.registration, web.registration), (False, True))

    def test_mistakes(self) -> None:
        """Each invalid option is reported with what is expected."""
        for arguments, parts in (
            (("--tls", ""), ["--tls", "CERT or CERT,KEY"]),
            (("--tls", "a,b,c"), ["--tls", "'a,b,c'"]),
            (("--tls-self-signed", "--acme", "*.a"), ["--acme", "wildcard"]),
            (("--acme", "a", "--acme-email", "ops"), ["--acme-email", "ops@example.org"]),
            (("--acme-email", "a@b"), ["--acme-email", "expected --acme NAME"]),
        ):
            (problem,) = option_problems(*SERVER, *arguments)
            for part in parts:
                self.assertIn(part, problem)


class RedirectOptionTests(ConfigFileTestCase):
    """`--redirect-https`."""

    def test_redirect(self) -> None:
        """It adds a plain frontend after the others."""
        web, redirect = parse_options(
            *SERVER, "--tls-self-signed", "--redirect-https", ":80", "-b", "b:443"
        ).frontends
        self.assertEqual(web.bind, (TcpAddress("b", 443),))
        self.assertEqual(
            redirect,
            FrontendSettings("redirect-https", (TcpAddress("0.0.0.0", 80),), redirect_https=True),
        )

    def test_printed_file(self) -> None:
        """The output of `--check` reads back to the same, also with the same options."""
        arguments = (
            *("-u", "https://a", "-u", "b:1", "--upstream-ca", "ca.pem", "--redirect-https", "80"),
            *("--tls", "a,b", "--tls", "c", "--acme", "a.b", "--acme-email", "d@e"),
        )
        # The files of these options do not exist.
        with mock.patch("balancebeam.process.options.check_tls_files"):
            settings, printed = self.check("", *arguments)
            self.assertEqual(self.parse(printed), settings)
            self.assertEqual(self.check(printed), (settings, printed))
            self.assertEqual(self.check(printed, *arguments), (settings, printed))

    def test_mistakes(self) -> None:
        """It needs a frontend with TLS, a valid address, and an address of its own."""
        for arguments, part in (
            (("--redirect-https", "80"), "--redirect-https: no frontend with TLS: expected --tls"),
            (("--tls=a", "--redirect-https", "x"), "--redirect-https: invalid address 'x'"),
            (("--tls=a", "--redirect-https", ":1100"), "duplicate address 0.0.0.0:1100"),
        ):
            (problem,) = option_problems(*SERVER, *arguments)
            self.assertIn(part, problem)
        (problem,) = self.option_problems(
            f"{ONE_POOL}[frontend]\nname = 'redirect-https'\n[frontend.tls]\nself_signed = true\n",
            *("--redirect-https", "80"),
        )
        self.assertIn("duplicate name 'redirect-https'", problem)


class UpstreamOptionTests(ConfigFileTestCase):
    """`--upstream https://…`, `--upstream-ca` and `--upstream-insecure`."""

    def test_check(self) -> None:
        """`--check` reads the files of both sides, and reports all that cannot be used."""
        arguments = ("-u", "https://a", "--upstream-ca", "/no-ca", "--tls", "/no-pem", "--check")
        problems = option_problems(*arguments)
        self.assertEqual(len(problems), 2, problems)
        self.assertIn("frontend web: /no-pem: cannot be read", problems[0])
        self.assertIn("pool app: tls: /no-ca: cannot be read", problems[1])

    def test_servers(self) -> None:
        """Servers with TLS have the same names, and the same address is a duplicate."""
        (pool,) = parse_options("-u", "https://a,weight=2", "-u", "a:80").pools
        secure = ServerSettings(TcpAddress("a", 443), 2, tls=True)
        self.assertEqual(pool.servers, (secure, ServerSettings(TcpAddress("a", 80))))
        self.assertIsNone(pool.tls)
        (pool,) = parse_options("-m", "tcp", "-u", "tls://a:1").pools
        self.assertEqual(pool.servers, (ServerSettings(TcpAddress("a", 1), tls=True),))
        for arguments, part in (
            (("-u", "https://a", "-u", "a:443"), "duplicate address a:443"),
            (("-u", "tls://a:1"), 'expected https://a:1 in mode "http"'),
            (("-m", "tcp", "-u", "https://a"), 'expected tls://a:443 in mode "tcp"'),
        ):
            (problem,) = option_problems(*arguments)
            self.assertIn(part, problem)

    def test_plain_servers_stay_plain(self) -> None:
        """The options change TLS of servers that have it, and of no other server."""
        for arguments, expected in (
            (("--upstream-ca", "x"), PoolTlsSettings("x", all_servers=False)),
            (("--upstream-insecure",), PoolTlsSettings(verify=False, all_servers=False)),
        ):
            (pool,) = parse_options("-u", "https://a", "-u", "b:1", *arguments).pools
            self.assertEqual(pool.tls, expected)
            self.assertEqual(list(map(pool.uses_tls, pool.servers)), [True, False])

    def test_file(self) -> None:
        """The options win over the file, in every pool that has TLS."""
        text = TWO_FRONTENDS + "[pool.tls]\nca = 'a'\ncert = 'b'\n"
        plain, secure = self.parse(text, "--upstream-ca", "c").pools
        self.assertIsNone(plain.tls)
        self.assertEqual(secure.tls, PoolTlsSettings("c", cert="b"))
        _, secure = self.parse(text, "--upstream-insecure").pools
        self.assertEqual(secure.tls, PoolTlsSettings(cert="b", verify=False))
        text = text.replace("ca = 'a'", "verify = false")
        _, secure = self.parse(text, "--upstream-ca", "c").pools
        self.assertEqual(secure.tls, PoolTlsSettings("c", cert="b"))

    def test_mistakes(self) -> None:
        """The options need a server with TLS, and contradict each other."""
        for arguments, part in (
            ((*SERVER, "--upstream-ca", "x"), "--upstream-ca: no server with TLS"),
            ((*SERVER, "--upstream-insecure"), "--upstream-insecure: no server with TLS"),
            (
                ("-u", "https://a", "--upstream-insecure", "--upstream-ca", "x"),
                "--upstream-ca: not used with --upstream-insecure",
            ),
            (("-u", "https://a", "--upstream-ca", ""), "--upstream-ca: invalid path"),
        ):
            (problem,) = option_problems(*arguments)
            self.assertIn(part, problem)
