"""Parsers of `[frontend.tls]`, `[pool.tls]` and `[acme]`."""

from __future__ import annotations

import ssl

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.tls import (
    parse_acme_name,
    parse_certificate_option,
    parse_ciphers,
    parse_email,
    parse_protocol,
    parse_server_name,
)
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AcmeSettings,
    CertificateSource,
    FrontendTlsSettings,
    PoolSettings,
    PoolTlsSettings,
    ServerSettings,
)
from balancebeam.core.tls_settings import DEFAULT_CIPHERS, LETS_ENCRYPT
from tests.helpers.config import ONE_POOL, ConfigFileTestCase

TLS = "[frontend.tls]\n"


class FrontendTlsTests(ConfigFileTestCase):
    """`[frontend.tls]`."""

    def tls(self, text: str) -> FrontendTlsSettings:
        """Return the settings of a table with these lines."""
        tls = self.load(f"{TLS}{text}\n{ONE_POOL}").frontends[0].tls
        assert tls is not None
        return tls

    def test_defaults(self) -> None:
        """Without the table there is no TLS; an empty table has the defaults."""
        self.assertIsNone(self.load(ONE_POOL).frontends[0].tls)
        self.assertEqual(self.tls(""), FrontendTlsSettings())

    def test_all_keys(self) -> None:
        """All keys of the documentation are accepted."""
        self.assertEqual(
            self.tls(
                'certificates = ["/live/a", "site.pem", {cert = "api.pem", key = "api.key"}]\n'
                'acme = ["www.example.org"]\nself_signed = true\nmin_version = "1.3"\n'
                'ciphers = "ECDHE+AESGCM"\nalpn = ["http/1.1"]\nstrict_sni = true\n'
                'client_ca = "clients.pem"\nclient_auth = "optional"\n'
            ),
            FrontendTlsSettings(
                (
                    CertificateSource("/live/a"),
                    CertificateSource("site.pem"),
                    CertificateSource("api.pem", "api.key"),
                ),
                ("www.example.org",),
                True,
                "1.3",
                "ECDHE+AESGCM",
                ("http/1.1",),
                True,
                "clients.pem",
                "optional",
            ),
        )

    def test_single_values(self) -> None:
        """A single value stands for a list of one, a table of one certificate too."""
        tls = self.tls('certificates = "a.pem"\nacme = "A.example"\nalpn = "http/1.1"')
        self.assertEqual(tls.certificates, (CertificateSource("a.pem"),))
        self.assertEqual((tls.acme, tls.alpn), (("a.example",), ("http/1.1",)))
        expected = (CertificateSource("a.pem", "a.key"),)
        for text in (
            'certificates = {cert = "a.pem", key = "a.key"}',
            '[[frontend.tls.certificates]]\ncert = "a.pem"\nkey = "a.key"',
        ):
            self.assertEqual(self.tls(text).certificates, expected)

    def test_empty_alpn(self) -> None:
        """An empty list is no ALPN, and differs from the default."""
        self.assertEqual(self.tls("alpn = []").alpn, ())
        self.assertIsNone(self.tls("").alpn)

    def test_mistakes(self) -> None:
        """Each mistake has the line of the element, the key and what is expected."""
        self.assert_each_mistake(
            (
                ("[frontend]\ntls = 1\n", 2, ["frontend.tls", "expected a table"]),
                (TLS + "certificates = ['a',\n3]\n", 3, ["certificates", "invalid certificate 3"]),
                (TLS + "certificates = ''\n", 2, ["certificates", "path of a file"]),
                (TLS + "certificates = ['a\\u0000']\n".replace("'", '"'), 2, ["certificates"]),
                (TLS + "certificates = ['a',\n'b',\n'a']\n", 2, ["duplicate value 'a'"]),
                (TLS + "certificates = [{cert='a'}]\n", 2, ["expected cert and key"]),
                (TLS + "certificates = [{key='a'}]\n", 2, ["expected cert and key"]),
                (TLS + "certificates = [{}]\n", 2, ["expected cert and key"]),
                (TLS + "certificates = [{cert='a', key=''}]\n", 2, ["path of a file"]),
                (TLS + "certificates = [{cert='a', kee='b'}]\n", 2, ["unknown key 'kee'"]),
                (TLS + "acme = ['a',\n'*.a.b']\n", 3, ["acme", "'*.a.b'", "http-01"]),
                (TLS + "acme = 'https://a'\n", 2, ["acme", "host name such as"]),
                (TLS + "acme = ['a.b', 'A.B']\n", 2, ["acme", "duplicate value 'a.b'"]),
                (TLS + "self_signed = 'yes'\n", 2, ["self_signed", "true or false"]),
                (TLS + "min_version = '1.1'\n", 2, ["min_version", "'1.1'", "1.2, 1.3"]),
                (TLS + "min_version = 1.2\n", 2, ["min_version", "1.2, 1.3"]),
                (TLS + "ciphers = 'NULL'\n", 2, ["ciphers", "weak"]),
                (TLS + "ciphers = 'nonsense'\n", 2, ["ciphers", "no cipher can be selected"]),
                (TLS + "alpn = ['h2',\n'\u00e9']\n", 3, ["alpn", "1 to 255 ASCII"]),
                (TLS + "alpn = ['']\n", 2, ["alpn", "1 to 255 ASCII"]),
                (TLS + "alpn = ['http/1.1', 'http/1.1']\n", 2, ["alpn", "duplicate value"]),
                (TLS + "strict_sni = 1\n", 2, ["strict_sni", "true or false"]),
                (TLS + "client_ca = ''\n", 2, ["client_ca", "path of a file"]),
                (TLS + "client_ca = 'a'\nclient_auth = 'on'\n", 3, ["client_auth", "optional"]),
                (TLS + "certificate = 'a'\n", 2, ["unknown key", "mean certificates?"]),
                (ONE_POOL + "strict_sni = true\n", 3, ["strict_sni belongs in [frontend.tls]"]),
            )
        )


class PoolTlsTests(ConfigFileTestCase):
    """`[pool.tls]`, and servers with TLS."""

    def pool(self, text: str) -> PoolSettings:
        """Return the pool of a file with these lines."""
        return self.load(f'[pool]\nupstreams = ["a:1"]\n{text}').pools[0]

    def test_defaults(self) -> None:
        """An empty table enables TLS with verification for all servers."""
        self.assertIsNone(self.pool("").tls)
        pool = self.pool("[pool.tls]\n")
        self.assertEqual(pool.tls, PoolTlsSettings())
        self.assertTrue(pool.uses_tls(pool.servers[0]))

    def test_all_keys(self) -> None:
        """All keys of the documentation are accepted."""
        text = (
            '[pool.tls]\nca="a"\nserver_name="App.internal"\ncert="b"\nkey="c"\nall_servers=false\n'
        )
        self.assertEqual(
            self.pool(text).tls,
            PoolTlsSettings("a", "app.internal", True, "b", "c", all_servers=False),
        )
        tls = self.pool("[pool.tls]\nverify = false\ncert = 'b'\n").tls
        self.assertEqual(tls, PoolTlsSettings(verify=False, cert="b"))

    def test_some_servers(self) -> None:
        """With `all_servers = false` only servers with a scheme of TLS use it, as without table."""
        plain, secure = ServerSettings(TcpAddress("a", 1)), ServerSettings(TcpAddress("b", 2))
        for tls in ("", "[pool.tls]\nall_servers = false\nca = 'x'\n"):
            pool = self.load(
                f'[pool]\nupstreams = ["a:1", {{address = "https://b:2", weight = 3}}]\n{tls}'
            ).pools[0]
            self.assertEqual([server.tls for server in pool.servers], [False, True])
            self.assertEqual([str(server.address) for server in pool.servers], ["a:1", "b:2"])
            self.assertEqual(list(map(pool.uses_tls, pool.servers)), [False, True])
            self.assertEqual(pool.servers[1].weight, 3)
        everywhere = PoolSettings(tls=PoolTlsSettings())
        self.assertTrue(everywhere.uses_tls(plain) and everywhere.uses_tls(secure))

    def test_mistakes(self) -> None:
        """Each mistake has its line, its key and what is expected."""
        self.assert_each_mistake(
            (
                ("[pool.tls]\nca = 1\n", 2, ["pool.tls.ca", "string in quotes"]),
                ("[pool.tls]\nca = 'a'\nverify = false\n", 2, ["ca", "verify = true, or no ca"]),
                ("[pool.tls]\nverify = 'no'\n", 2, ["verify", "true or false"]),
                ("[pool.tls]\nkey = 'a'\n", 2, ["key", "without a certificate", "cert"]),
                ("[pool.tls]\ncert = ''\n", 2, ["cert", "path of a file"]),
                ("[pool.tls]\nserver_name = 'a:1'\n", 2, ["server_name", "host name or an IP"]),
                ("[pool.tls]\nall_servers = 0\n", 2, ["all_servers", "true or false"]),
                ("[pool.tls]\nservername = 'a'\n", 2, ["unknown key", "mean server_name?"]),
                ("[[pool]]\nverify = false\n", 2, ["verify belongs in [pool.tls]"]),
            )
        )


class AcmeTests(ConfigFileTestCase):
    """`[acme]`."""

    def test_table(self) -> None:
        """The storage is required; the server is Let's Encrypt by default."""
        self.assertIsNone(self.load(ONE_POOL).acme)
        settings = self.load(f'[acme]\nstorage = "/x"\n{ONE_POOL}').acme
        self.assertEqual(settings, AcmeSettings("/x", LETS_ENCRYPT, None, None))
        settings = self.load(
            '[acme]\nstorage="x"\ndirectory="https://localhost:14000/dir"\nemail="a@b.c"\nca="d"\n'
            + ONE_POOL
        ).acme
        self.assertEqual(settings, AcmeSettings("x", "https://localhost:14000/dir", "a@b.c", "d"))

    def test_mistakes(self) -> None:
        """Each mistake has its line, its key and what is expected."""
        acme = "[acme]\nstorage = 'a'\n"
        self.assert_each_mistake(
            (
                ("\n[acme]\n", 2, ["acme.storage", "missing storage", "directory"]),
                ("[acme]\nstorage = ''\n", 2, ["acme.storage", "path"]),
                ("acme = 'a'\n", 1, ["acme", "expected a table"]),
                (acme + "directory = 'http://a'\n", 3, ["directory", "https://"]),
                (acme + "directory = 'https://a b'\n", 3, ["directory", "https://"]),
                (acme + "email = 'ops'\n", 3, ["email", "ops@example.org"]),
                (acme + "ca = 1\n", 3, ["acme.ca", "quotes"]),
                (acme + "mail = 'a@b'\n", 3, ["unknown key", "mean email?"]),
            )
        )


class ValueTests(SynchronousTestCase):
    """Single values of the settings of TLS."""

    def test_certificate_options(self) -> None:
        """`--tls` has a path, or two paths with a comma between them."""
        cases = {
            "a.pem": CertificateSource("a.pem"),
            "/live/a": CertificateSource("/live/a"),
            "a.pem,a.key": CertificateSource("a.pem", "a.key"),
        }
        for text, source in cases.items():
            self.assertEqual(parse_certificate_option(text), source)
            self.assertEqual(str(source), text)
        for text in ("", ",", "a,", ",b", "a,b,c", "a\0", "a,\0"):
            self.assertRaises(ValueError, parse_certificate_option, text)

    def test_acme_names(self) -> None:
        """Names for ACME are host names of the DNS, in lower case."""
        longest = ".".join(["a" * 63] * 3 + ["b" * 61])
        for name in ("a", "www.example.org", "xn--bcher-kva.example", "1.a", "a-b.c", longest):
            self.assertEqual(parse_acme_name(name), name)
            self.assertEqual(parse_acme_name(name.upper()), name)
        for name in (
            *("", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "a b", "a/b", "a:80", "b\u00fccher"),
            *("192.0.2.1", "::1", "[::1]", "300.1.1.1", "a" * 64, longest + "b", "a\n"),
        ):
            error = self.assertRaises(ValueError, parse_acme_name, name)
            self.assertIn("expected a host name", str(error))
        error = self.assertRaises(ValueError, parse_acme_name, "*.example.org")
        self.assertIn("tls-alpn-01 cannot validate", str(error))

    def test_server_names(self) -> None:
        """The name of a server is a host name or an IP address, in its normal form."""
        cases = {
            "app.internal": "app.internal",
            "My_App": "my_app",
            "192.0.2.1": "192.0.2.1",
            "2001:DB8:0::1": "2001:db8::1",
        }
        for text, name in cases.items():
            self.assertEqual(parse_server_name(text), name)
        for text in ("", "*.a", "a.", "a:1", "[::1]", "300.1.1.1", "fe80::1%eth0", "a b", "a\0"):
            self.assertRaises(ValueError, parse_server_name, text)

    def test_protocols(self) -> None:
        """A protocol has 1 to 255 ASCII characters."""
        for text in ("http/1.1", "h2", "x", "x" * 255, " "):
            self.assertEqual(parse_protocol(text), text)
        for text in ("", "x" * 256, "\u00e4", "\u0663"):
            self.assertRaises(ValueError, parse_protocol, text)

    def test_ciphers(self) -> None:
        """Lists of OpenSSL are accepted, and have the ciphers that OpenSSL selects."""
        for text in (
            DEFAULT_CIPHERS,
            "ECDHE+AESGCM",
            "HIGH:!aNULL:!MD5",
            "HIGH:!aNULL:@SECLEVEL=2",
        ):
            self.assertEqual(parse_ciphers(text), text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(DEFAULT_CIPHERS)
        names = [cipher["name"] for cipher in context.get_ciphers()]
        for name in DEFAULT_CIPHERS.split(":"):
            self.assertIn(name, names)

    def test_weak_ciphers(self) -> None:
        """Ciphers below OpenSSL's default level, and lists without a cipher, are rejected."""
        for text, part in (
            ("nonsense", "no cipher can be selected"),
            ("", "no cipher can be selected"),
            ("TLS_AES_128_GCM_SHA256", "expected TLS 1.2 cipher suites"),
            ("a\0b", "null character"),
            ("\u00e4", "no cipher can be selected"),
            ("aNULL", "expected suites with authentication"),
            ("NULL-SHA256", "at least 112 bits"),
            ("ECDHE+AESGCM:eNULL", "at least 112 bits"),
            ("ECDHE+AESGCM:@SECLEVEL=0", "@SECLEVEL=2 or more"),
            ("ECDHE+AESGCM:@SECLEVEL=1", "@SECLEVEL=2 or more"),
        ):
            error = self.assertRaises(ValueError, parse_ciphers, text)
            self.assertIn(part, str(error), msg=text)
            self.assertIn("ciphers", str(error))

    def test_email(self) -> None:
        """A contact is one address without header fields (RFC 8555, 7.3)."""
        for text in ("ops@example.org", "a+b@c"):
            self.assertEqual(parse_email(text), text)
        for text in ("", "ops", "@a", "a@", "a@b@c", "a@b,c@d", "a@b?subject=x", "a b@c", "a@b\n"):
            self.assertRaises(ValueError, parse_email, text)
