"""TLS contexts of connections to servers, built from files."""

from __future__ import annotations

import os
import ssl
import time
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import PoolSettings, PoolTlsSettings, ServerSettings
from balancebeam.tls.client_contexts import build_client_context, server_hostname
from balancebeam.tls.contexts import OP_NO_RENEGOTIATION
from balancebeam.upstream.pool_tls import PoolTls, read_all_tls
from tests.helpers.certificates import (
    CertificateAuthority,
    IssuedCertificate,
    ec_key,
    encode_key,
    shared_authority,
    write,
)
from tests.helpers.files import temporary_directory


class ContextTests(SynchronousTestCase):
    """`build_client_context`."""

    def setUp(self) -> None:
        self.directory = temporary_directory(self)

    def file(self, content: bytes, name: str = "file.pem") -> str:
        """Write a file; returns its path."""
        return write(self.directory / name, content)

    def issue(self, not_after: float | None = None) -> IssuedCertificate:
        """A client certificate."""
        return shared_authority().issue(common_name="balancer", client=True, not_after=not_after)

    def assert_error(self, settings: PoolTlsSettings, *texts: str) -> None:
        """The error contains all `texts`."""
        error = str(self.assertRaises(ConfigError, build_client_context, settings))
        for text in texts:
            self.assertIn(text, error)

    def test_defaults(self) -> None:
        """Servers are verified by name, with TLS 1.2 or later, and without renegotiation."""
        context = build_client_context(PoolTlsSettings()).context
        self.assertIs(context.verify_mode, ssl.CERT_REQUIRED)
        self.assertTrue(context.check_hostname)
        self.assertEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        for option in (ssl.OP_NO_COMPRESSION, OP_NO_RENEGOTIATION):
            self.assertTrue(context.options & option)

    def test_not_verified(self) -> None:
        """With `verify = false`, neither certificate nor name are verified."""
        context = build_client_context(PoolTlsSettings(verify=False)).context
        self.assertIs(context.verify_mode, ssl.CERT_NONE)
        self.assertFalse(context.check_hostname)

    def test_custom_ca(self) -> None:
        """Only the CA certificates of the file are trusted; comments are in any encoding."""
        other = CertificateAuthority("Other CA")
        content = b"# Autorit\xe9\n" + shared_authority().root + "# Größe\n".encode() + other.root
        built = build_client_context(PoolTlsSettings(ca=self.file(content)))
        names = {str(ca["subject"]) for ca in built.context.get_ca_certs()}
        self.assertEqual(len(names), 2)
        self.assertEqual(built.warnings, ())

    def test_ca_errors(self) -> None:
        """The error names the CA file and the reason."""
        missing = str(self.directory / "missing.pem")
        self.assert_error(PoolTlsSettings(ca=missing), missing, "no such file or directory")
        directory = str(self.directory)
        self.assert_error(PoolTlsSettings(ca=directory), directory, "cannot be read")
        for content in (b"", b"hello", b"\0" * 100):
            path = self.file(content)
            self.assert_error(PoolTlsSettings(ca=path), path, "not a PEM file")
        path = self.file(encode_key(ec_key()))
        self.assert_error(PoolTlsSettings(ca=path), path, "no certificate")
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        path = self.file(broken)
        self.assert_error(PoolTlsSettings(ca=path), path, "invalid CA certificate")
        fifo = str(self.directory / "fifo")
        os.mkfifo(fifo)
        self.assert_error(PoolTlsSettings(ca=fifo), fifo, "not a regular file")
        self.assert_error(PoolTlsSettings(cert=fifo), fifo, "not a regular file")

    def test_client_certificate(self) -> None:
        """Certificate and key are in one file or in two."""
        issued = self.issue()
        cert, key = issued.write_pair(self.directory / "me.pem", self.directory / "me.key")
        self.assertEqual(build_client_context(PoolTlsSettings(cert=cert, key=key)).warnings, ())
        both = issued.write_file(self.directory / "both.pem")
        self.assertEqual(build_client_context(PoolTlsSettings(cert=both)).warnings, ())

    def test_client_certificate_errors(self) -> None:
        """The error names the file and the reason; no passphrase is read from the terminal."""
        issued = self.issue()
        cert = self.file(issued.chain, "me.pem")
        cases = (
            (encode_key(ec_key()), "does not match"),
            (encode_key(ec_key(), b"secret"), "private key is encrypted"),
            (issued.chain, "no private key"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "invalid"),
        )
        for content, text in cases:
            key = self.file(content, "me.key")
            self.assert_error(PoolTlsSettings(cert=cert, key=key), key, text)
        self.assert_error(PoolTlsSettings(cert=cert), cert, "no private key")
        self.assert_error(PoolTlsSettings(cert=cert, key="/nonexistent"), "/nonexistent: cannot")
        key = self.file(issued.key, "only.key")
        self.assert_error(PoolTlsSettings(cert=key), key, "no certificate")

    def test_warnings(self) -> None:
        """Expired certificates, and a key that all users can read, are warnings."""
        issued = self.issue(not_after=time.time() - 60)
        both = issued.write_file(self.directory / "both.pem")
        os.chmod(both, 0o644)
        expired, readable = build_client_context(PoolTlsSettings(cert=both)).warnings
        self.assertIn(f"{both}: certificate expired on ", expired)
        self.assertEqual(readable, f"{both}: private key readable by all users")

    def test_invalid_server_name(self) -> None:
        """A name that is not valid in SNI is an error."""
        for name in ("", ".example.org", "a..b", "a\0b"):
            self.assert_error(PoolTlsSettings(server_name=name), f"invalid server_name {name!r}")

    def test_system_cas_changed(self) -> None:
        """A reload uses changed CA certificates of the system."""
        path = self.file(shared_authority().root)
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": path}):
            first = build_client_context(PoolTlsSettings())
            self.assertEqual(build_client_context(PoolTlsSettings()), first)
            self.file(CertificateAuthority().root + b"\n")
            self.assertNotEqual(build_client_context(PoolTlsSettings()), first)

    def test_fingerprint(self) -> None:
        """The fingerprint changes with settings and contents, and with nothing else."""
        ca = self.file(shared_authority().root)
        first = build_client_context(PoolTlsSettings(ca=ca))
        self.assertEqual(build_client_context(PoolTlsSettings(ca=ca)), first)
        self.assertNotEqual(build_client_context(PoolTlsSettings(ca=ca, verify=False)), first)
        self.file(CertificateAuthority().root)
        self.assertNotEqual(build_client_context(PoolTlsSettings(ca=ca)), first)


class ServerHostnameTests(SynchronousTestCase):
    """`server_hostname`: the name that a server is verified by."""

    def test_names(self) -> None:
        """`server_name`, else the host without zone and trailing dot; none for Unix sockets."""
        default, named = PoolTlsSettings(), PoolTlsSettings(server_name="app.internal")
        tcp = TcpAddress("app.example.", 443)
        self.assertEqual(server_hostname(default, tcp), "app.example")
        self.assertEqual(server_hostname(named, tcp), "app.internal")
        self.assertEqual(server_hostname(default, TcpAddress("fe80::1%eth0", 443)), "fe80::1")
        self.assertIsNone(server_hostname(default, UnixAddress("/run/app")))
        self.assertEqual(server_hostname(named, UnixAddress("/run/app")), "app.internal")


class PoolTlsTests(SynchronousTestCase):
    """`PoolTls.read`."""

    def test_without_tls(self) -> None:
        """A pool without TLS reads no file."""
        server = ServerSettings(TcpAddress("10.0.0.1", 80))
        self.assertIsNone(PoolTls.read(PoolSettings(servers=(server,))).client)

    def test_context_kept(self) -> None:
        """The context is kept while its settings and files stay the same."""
        pool = PoolSettings(tls=PoolTlsSettings(verify=False))
        first = PoolTls.read(pool)
        self.assertIs(PoolTls.read(pool, first).client, first.client)
        self.assertIsNot(PoolTls.read(pool).client, first.client)

    def test_unix_socket(self) -> None:
        """A Unix socket has no name to verify: `server_name` or `verify = false` is required."""
        servers = (ServerSettings(UnixAddress("/run/app"), tls=True),)
        error = self.assertRaises(ConfigError, PoolTls.read, PoolSettings(servers=servers))
        self.assertIn("pool app: tls: unix:/run/app has no host name to verify", str(error))
        for tls in (PoolTlsSettings(verify=False), PoolTlsSettings(server_name="app")):
            self.assertIsNotNone(PoolTls.read(PoolSettings(servers=servers, tls=tls)).client)

    def test_problems_of_all_pools(self) -> None:
        """The problems of all pools are reported at once."""
        pools = tuple(
            PoolSettings(name, tls=PoolTlsSettings(ca=f"/nonexistent/{name}")) for name in "ab"
        )
        error = self.assertRaises(ConfigError, read_all_tls, pools, {})
        self.assertEqual(len(error.problems), 2)
