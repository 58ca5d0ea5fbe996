"""Handshakes with the contexts of frontends: names, keys, versions, ALPN, client certificates."""

from __future__ import annotations

import shutil
import ssl
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.protocols.tls_records import (
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    AlertError,
)
from balancebeam.tls.contexts import ContextOptions, build_context
from balancebeam.tls.selection import FrontendContexts, prepare_contexts
from balancebeam.tls.self_signed import self_signed_certificate
from tests.helpers.certificates import (
    CertificateAuthority,
    IssuedCertificate,
    rsa_key,
    shared_authority,
    write,
)
from tests.helpers.tls import as_certificate, client_context, frontend_contexts, handshake

CA = shared_authority()
A = CA.issue("a.example", "a2.example")
A_RSA = CA.issue("a.example", key=rsa_key())
WILDCARD = CA.issue("*.w.example")

ECDSA_SUITE, RSA_SUITE = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"


def tls12_client(ciphers: str) -> ssl.SSLContext:
    """A client that supports TLS 1.2 with these cipher suites only."""
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


class ServerNameTests(SynchronousTestCase):
    """Selection of a certificate by server name."""

    def assert_served(
        self, contexts: FrontendContexts, name: str | None, expected: IssuedCertificate
    ) -> None:
        """A client with a server name gets a certificate."""
        self.assertEqual(handshake(contexts, client_context(), name).certificate, expected.der)

    def test_names(self) -> None:
        """Exact names precede wildcards, which stand for one label; others get the default."""
        exact = CA.issue("exact.w.example")
        contexts = frontend_contexts(A, WILDCARD, exact)
        for name, expected in (
            ("a.example", A),
            ("A2.EXAMPLE", A),
            ("x.w.example", WILDCARD),
            ("exact.w.example", exact),
            ("w.example", A),
            ("x.y.w.example", A),
            ("other.example", A),
            (None, A),
        ):
            self.assert_served(contexts, name, expected)

    def test_names_are_verified_by_clients(self) -> None:
        """A client that verifies the name accepts certificate and chain."""
        client = client_context()
        client.check_hostname = True
        handshake(frontend_contexts(A, WILDCARD), client, "x.w.example")

    def test_strict_sni(self) -> None:
        """With strict_sni, unknown and missing names are rejected with unrecognized_name."""
        settings = FrontendTlsSettings(strict_sni=True)
        contexts = frontend_contexts(A, WILDCARD, settings=settings)
        self.assert_served(contexts, "a.example", A)
        self.assert_served(contexts, "x.w.example", WILDCARD)
        for name in ("b.example", "w.example", None):
            error = self.assertRaises(AlertError, handshake, contexts, client_context(), name)
            self.assertEqual((error.description, error.reason), (UNRECOGNIZED_NAME, "sni"))

    def test_certificate_without_names(self) -> None:
        """A default certificate without DNS names serves clients whose name no other has."""
        default = CA.issue("192.0.2.1")
        contexts = frontend_contexts(default, A)
        self.assert_served(contexts, None, default)
        self.assert_served(contexts, "a.example", A)

    def test_first_certificate_of_a_name(self) -> None:
        """Of two certificates with the same name and type of key, the first is used."""
        second = CA.issue("a.example", "b.example")
        contexts = frontend_contexts(A, second)
        self.assert_served(contexts, "a.example", A)
        self.assert_served(contexts, "b.example", second)


class KeyTypeTests(SynchronousTestCase):
    """RSA and ECDSA certificates side by side."""

    def test_certificate_by_cipher_suite(self) -> None:
        """A TLS 1.2 client gets the certificate that its cipher suites need."""
        contexts = frontend_contexts(A, A_RSA)
        for name in ("a.example", None):
            for suite, expected in ((ECDSA_SUITE, A), (RSA_SUITE, A_RSA)):
                result = handshake(contexts, tls12_client(suite), name)
                self.assertEqual(result.certificate, expected.der)

    def test_names_of_one_certificate(self) -> None:
        """A name of the ECDSA certificate only is not served with the RSA certificate."""
        contexts = frontend_contexts(A, A_RSA)
        self.assertRaises(ssl.SSLError, handshake, contexts, tls12_client(RSA_SUITE), "a2.example")

    def test_rsa_only(self) -> None:
        """An RSA certificate serves TLS 1.3 and TLS 1.2 clients."""
        contexts = frontend_contexts(A_RSA)
        for client in (client_context(), tls12_client(RSA_SUITE)):
            self.assertEqual(handshake(contexts, client).certificate, A_RSA.der)


class OptionTests(SynchronousTestCase):
    """Versions, cipher suites, ALPN, and what is never enabled."""

    def test_min_version(self) -> None:
        """TLS 1.2 clients are rejected with min_version 1.3, and served by default."""
        client = tls12_client("ALL")
        self.assertEqual(handshake(frontend_contexts(A), client).server.version(), "TLSv1.2")
        strict = frontend_contexts(A, settings=FrontendTlsSettings(min_version="1.3"))
        self.assertRaises(ssl.SSLError, handshake, strict, client)
        self.assertEqual(handshake(strict, client_context()).server.version(), "TLSv1.3")

    def test_old_versions(self) -> None:
        """No version before TLS 1.2 can be negotiated."""
        for named in frontend_contexts(A).active.contexts:
            self.assertEqual(named.context.minimum_version, ssl.TLSVersion.TLSv1_2)

    def test_ciphers(self) -> None:
        """Only the configured cipher suites of TLS 1.2 are used."""
        suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
        contexts = frontend_contexts(A, settings=FrontendTlsSettings(ciphers=suite))
        cipher = handshake(contexts, tls12_client("ALL")).server.cipher()
        self.assertEqual(cipher and cipher[0], suite)
        self.assertRaises(ssl.SSLError, handshake, contexts, tls12_client(ECDSA_SUITE))

    def test_invalid_ciphers(self) -> None:
        """Unknown cipher suites are an error."""
        settings = FrontendTlsSettings(ciphers="NONSENSE")
        error = self.assertRaises(ValueError, frontend_contexts, A, settings=settings)
        self.assertIn("invalid ciphers 'NONSENSE'", str(error))

    def test_weak_key(self) -> None:
        """A key that OpenSSL rejects is an error with the source of the certificate."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        weak = CA.issue("a", key=rsa.generate_private_key(public_exponent=65537, key_size=1024))
        error = self.assertRaises(ValueError, frontend_contexts, weak)
        self.assertEqual(str(error), "test.pem: certificate rejected by OpenSSL: ee key too small")

    def test_alpn(self) -> None:
        """The server's preference decides; without overlap the handshake ends with an alert."""
        settings = FrontendTlsSettings(alpn=("x", "y"))
        contexts = frontend_contexts(A, settings=settings)
        client = client_context()
        client.set_alpn_protocols(["y", "x"])
        self.assertEqual(handshake(contexts, client).client.selected_alpn_protocol(), "x")
        client.set_alpn_protocols(["h2"])
        error = self.assertRaises(AlertError, handshake, contexts, client)
        self.assertEqual((error.description, error.reason), (NO_APPLICATION_PROTOCOL, "alpn"))
        result = handshake(contexts, client_context())
        self.assertIsNone(result.server.selected_alpn_protocol())

    def test_default_alpn(self) -> None:
        """HTTP frontends prefer h2; TCP frontends ignore ALPN."""
        client = client_context()
        client.set_alpn_protocols(["h2", "http/1.1"])
        result = handshake(frontend_contexts(A), client)
        self.assertEqual(result.server.selected_alpn_protocol(), "h2")
        client.set_alpn_protocols(["h2"])
        result = handshake(frontend_contexts(A, mode="tcp"), client)
        self.assertIsNone(result.server.selected_alpn_protocol())

    def test_safe_options(self) -> None:
        """Renegotiation and compression are off."""
        for named in frontend_contexts(A).active.contexts:
            self.assertTrue(named.context.options & 1 << 30)
            self.assertTrue(named.context.options & ssl.OP_NO_COMPRESSION)

    def test_challenges(self) -> None:
        """A client that offers acme-tls/1 alone gets the challenge of its name, or an alert."""
        challenge = as_certificate(CA.issue("a.example"))
        options = ContextOptions("1.2", FrontendTlsSettings().ciphers, ("acme-tls/1",), None, "")
        prepared = prepare_contexts(
            FrontendTlsSettings(strict_sni=True), "http", [as_certificate(A)]
        )
        contexts = FrontendContexts(prepared, {"new.example": build_context(options, [challenge])})
        client = client_context()
        client.set_alpn_protocols(["acme-tls/1"])
        result = handshake(contexts, client, "new.example")
        self.assertEqual(result.client.selected_alpn_protocol(), "acme-tls/1")
        for name in ("a.example", None):
            error = self.assertRaises(AlertError, handshake, contexts, client, name)
            self.assertEqual(error.description, NO_APPLICATION_PROTOCOL)
        client.set_alpn_protocols(["acme-tls/1", "http/1.1"])
        self.assertEqual(handshake(contexts, client, "a.example").certificate, A.der)

    def test_self_signed(self) -> None:
        """A client that trusts the self-signed certificate verifies localhost with it."""
        certificate = self_signed_certificate(time.time())
        contexts = FrontendContexts(prepare_contexts(FrontendTlsSettings(), "http", [certificate]))
        client = client_context(certificate.chain)
        client.check_hostname = True
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        for name in ("localhost", "127.0.0.1", "::1"):
            handshake(contexts, client, name)


class ClientCertificateTests(SynchronousTestCase):
    """Client certificates."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.folder = Path(folder)
        self.clients = CertificateAuthority("Clients")

    def settings(self, client_auth: str = "require") -> FrontendTlsSettings:
        """The settings of a frontend that verifies clients."""
        path = write(self.folder / "clients.pem", self.clients.root)
        return FrontendTlsSettings(client_ca=path, client_auth=client_auth)

    def client(self, authority: CertificateAuthority) -> ssl.SSLContext:
        """A client with a certificate."""
        context = client_context()
        certificate = authority.issue("someclient", client=True)
        context.load_cert_chain(certificate.write_file(self.folder / "client.pem"))
        return context

    def test_required(self) -> None:
        """A client without a certificate, or with one of another CA, is rejected."""
        contexts = frontend_contexts(A, settings=self.settings())
        result = handshake(contexts, self.client(self.clients))
        self.assertTrue(result.server.getpeercert(True))
        self.assertRaises(ssl.SSLError, handshake, contexts, client_context())
        self.assertRaises(ssl.SSLError, handshake, contexts, self.client(CA))

    def test_optional(self) -> None:
        """An optional certificate may be missing, but not be of another CA."""
        contexts = frontend_contexts(A, settings=self.settings("optional"))
        result = handshake(contexts, self.client(self.clients))
        self.assertTrue(result.server.getpeercert(True))
        self.assertIsNone(handshake(contexts, client_context()).server.getpeercert(True))
        self.assertRaises(ssl.SSLError, handshake, contexts, self.client(CA))

    def test_server_certificate_of_a_client(self) -> None:
        """A certificate that is for servers only does not authenticate a client."""
        context = client_context()
        certificate = self.clients.issue("server.example")
        context.load_cert_chain(certificate.write_file(self.folder / "client.pem"))
        contexts = frontend_contexts(A, settings=self.settings())
        self.assertRaises(ssl.SSLError, handshake, contexts, context)

    def test_ca_content_is_required(self) -> None:
        """Contexts are not built without the CA certificates that the settings name."""
        self.assertRaises(
            ValueError, prepare_contexts, self.settings(), "http", [as_certificate(A)]
        )

    def test_tickets_of_another_frontend(self) -> None:
        """A session of an open frontend does not get a client past the verification of another."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = client_context()
            client.maximum_version = version
            session = handshake(frontend_contexts(A), client).client.session
            closed = frontend_contexts(A, settings=self.settings())
            self.assertRaises(ssl.SSLError, handshake, closed, client, None, session)
            optional = frontend_contexts(A, settings=self.settings("optional"))
            self.assertFalse(handshake(optional, client, None, session).client.session_reused)
