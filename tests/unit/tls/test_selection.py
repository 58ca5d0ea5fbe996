"""Replacement of contexts, sessions that survive it, and selection against a slow reference."""

from __future__ import annotations

import ssl
from typing import Any
from unittest import mock

from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.protocols.client_hello import ClientHello
from balancebeam.protocols.tls_records import UNRECOGNIZED_NAME, AlertError
from balancebeam.tls import selection
from balancebeam.tls.certificates import Certificate
from balancebeam.tls.contexts import build_context
from balancebeam.tls.selection import FrontendContexts, PreparedContexts, prepare_contexts
from tests.helpers.certificates import (
    CertificateAuthority,
    IssuedCertificate,
    rsa_key,
    shared_authority,
)
from tests.helpers.tls import (
    as_certificate,
    client_context,
    frontend_contexts,
    handshake,
    prepared_contexts,
)

CA = shared_authority()
OLD, NEW = CA.issue("a.example"), CA.issue("a.example")
SETTINGS = FrontendTlsSettings()


def prepare(
    settings: FrontendTlsSettings, client_ca: bytes, *certificates: IssuedCertificate
) -> PreparedContexts:
    """Contexts with a client CA in memory."""
    settings = evolve(settings, client_ca="clients.pem", client_auth="optional")
    return prepare_contexts(settings, "http", [*map(as_certificate, certificates)], client_ca)


class CommitTests(SynchronousTestCase):
    """Certificates that are replaced while clients hold sessions."""

    def setUp(self) -> None:
        self.contexts = frontend_contexts(OLD)
        self.client = client_context()

    def assert_resumed(self, expected: bool, session: ssl.SSLSession | None) -> None:
        """A handshake with a session resumes it, or does not."""
        result = handshake(self.contexts, self.client, "a.example", session)
        self.assertEqual(result.client.session_reused, expected)

    def session(self) -> ssl.SSLSession | None:
        """A session of a new connection."""
        return handshake(self.contexts, self.client, "a.example").client.session

    def test_renewed_certificate(self) -> None:
        """New connections get a renewed certificate, and sessions are still resumed."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.client.maximum_version = version
            session = self.session()
            for renewed in (NEW, CA.issue("a.example"), OLD):
                self.assertEqual(self.contexts.commit(prepared_contexts(renewed)), [])
                self.assert_resumed(True, session)
                result = handshake(self.contexts, client_context(), "a.example")
                self.assertEqual(result.certificate, renewed.der)

    def test_renewed_certificates_of_two_types(self) -> None:
        """RSA and ECDSA certificates are both replaced in the living context."""
        self.contexts = frontend_contexts(OLD, CA.issue("a.example", key=rsa_key()))
        session, renewed = self.session(), (NEW, CA.issue("a.example", key=rsa_key()))
        self.contexts.commit(prepared_contexts(*renewed))
        self.assert_resumed(True, session)
        for certificate, kind in zip(renewed, ("ECDSA", "RSA")):
            client = client_context()
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            client.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
            self.assertEqual(
                handshake(self.contexts, client, "a.example").certificate, certificate.der
            )

    def test_unchanged_certificate(self) -> None:
        """The same certificate again loads nothing, and keeps sessions."""
        session = self.session()
        with mock.patch.object(selection, "load_certificates") as load:
            self.contexts.commit(prepared_contexts(OLD))
        load.assert_not_called()
        self.assert_resumed(True, session)

    def test_another_name_keeps_the_sessions_of_the_first(self) -> None:
        """A certificate that is added for another name leaves sessions of the first name."""
        session = self.session()
        self.contexts.commit(prepared_contexts(OLD, CA.issue("b.example")))
        self.assert_resumed(True, session)

    def test_changed_options(self) -> None:
        """Other versions, ciphers, ALPN or types of keys take a new context."""
        for settings in (
            FrontendTlsSettings(min_version="1.3"),
            FrontendTlsSettings(ciphers="ECDHE+AESGCM"),
            FrontendTlsSettings(alpn=("x",)),
        ):
            session = self.session()
            self.contexts.commit(prepared_contexts(NEW, settings=settings))
            self.assert_resumed(False, session)
        session = self.session()
        self.contexts.commit(prepared_contexts(CA.issue("a.example", key=rsa_key())))
        self.assert_resumed(False, session)

    def test_changed_client_ca(self) -> None:
        """Sessions of the old client CA are not resumed with a new one."""
        first, second = CertificateAuthority("1").root, CertificateAuthority("2").root
        self.contexts = FrontendContexts(prepare(SETTINGS, first, OLD))
        session = self.session()
        self.contexts.commit(prepare(SETTINGS, first, NEW))
        self.assert_resumed(True, session)
        self.contexts.commit(prepare(SETTINGS, second, NEW))
        self.assert_resumed(False, session)

    def test_handshake_during_a_commit(self) -> None:
        """A handshake that has begun ends with the old certificate."""
        contexts = self.contexts

        class Committing:
            """A selector, and a context in which a handshake begins before a commit."""

            def select(self, hello: ClientHello) -> Any:
                """Return this object as the context."""
                self.context = contexts.select(hello)
                return self

            def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
                """Begin a handshake, then replace the certificate."""
                side = self.context.wrap_bio(*arguments, **options)
                contexts.commit(prepared_contexts(NEW))
                return side

        self.assertEqual(handshake(Committing(), self.client, "a.example").certificate, OLD.der)
        self.assertEqual(handshake(contexts, self.client, "a.example").certificate, NEW.der)

    def test_failed_load(self) -> None:
        """If loading fails nevertheless, a new context is used, and a warning returned."""
        session, prepared = self.session(), prepared_contexts(NEW)
        with mock.patch.object(selection, "load_certificates", side_effect=ValueError("no memory")):
            warnings = self.contexts.commit(prepared)
        self.assertEqual(warnings, ["no memory; session tickets become invalid"])
        self.assert_resumed(False, session)
        result = handshake(self.contexts, client_context(), "a.example")
        self.assertEqual(result.certificate, NEW.der)

    def test_moved_name(self) -> None:
        """A certificate that gets the names of another one never serves its old names."""
        wide, narrow = (
            CA.issue("a.example", "b.example", "c.example"),
            CA.issue("c.example", "d.example"),
        )
        self.contexts = frontend_contexts(narrow, wide)
        other = CA.issue("a.example", "b.example")
        certificates = [*map(as_certificate, (other, wide))]
        self.contexts.commit(
            prepare_contexts(SETTINGS, "http", certificates, None, self.contexts.active)
        )
        for name, expected in (("a.example", other), ("c.example", wide)):
            result = handshake(self.contexts, client_context(), name)
            self.assertEqual(result.certificate, expected.der)

    def test_contexts_are_not_built_again(self) -> None:
        """Of many certificates, only the changed one takes a new context."""
        others = [CA.issue(f"{number}.example") for number in range(3)]
        self.contexts = frontend_contexts(OLD, *others)
        certificates = [*map(as_certificate, (NEW, *others))]
        with mock.patch.object(selection, "build_context", wraps=build_context) as build:
            prepare_contexts(SETTINGS, "http", certificates, None, self.contexts.active)
        self.assertEqual(build.call_count, 1)


LABELS = st.sampled_from(("a", "b", "*", "*a"))
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
CERTIFICATES = st.lists(
    st.tuples(st.lists(NAMES, max_size=3, unique=True), st.sampled_from(("rsa", "ec"))),
    min_size=1,
    max_size=5,
)
SERVER_NAMES = st.none() | st.lists(st.sampled_from(("a", "b")), min_size=1, max_size=3).map(
    ".".join
)


def certificate(number: int, names: list[str], key_type: str) -> Certificate:
    """A certificate of which only the names and the type of key count."""
    return Certificate(str(number), b"", b"", tuple(names), (), 0, 0, key_type)


def matching(certificates: list[Certificate], name: str) -> list[Certificate]:
    """The first certificate of each type of key that has a name literally."""
    found: dict[str, Certificate] = {}
    for item in certificates:
        if name in item.names:
            found.setdefault(item.key_type, item)
    return [*found.values()]


def expected_certificates(
    certificates: list[Certificate], name: str | None
) -> list[Certificate] | None:
    """The certificates for a client, by a slow algorithm; `None` for an unknown name."""
    if name is None:
        return None
    wildcard = ".".join(["*", *name.split(".")[1:]])
    return (
        matching(certificates, name)
        or (matching(certificates, wildcard) if "." in name else [])
        or None
    )


class SelectionPropertyTests(SynchronousTestCase):
    """The selection equals a slow reference."""

    @example([(["b"], "ec"), (["*.a"], "ec")], [(["b"], "ec")], ["a"], False)
    @given(CERTIFICATES, CERTIFICATES, st.lists(SERVER_NAMES, max_size=8), st.booleans())
    def test_selection(
        self,
        before: list[tuple[list[str], str]],
        after: list[tuple[list[str], str]],
        names: list[str | None],
        strict: bool,
    ) -> None:
        """Each name gets its certificates, at first and after a commit, whatever came before."""
        loaded: dict[ssl.SSLContext, list[Certificate]] = {}

        def load(context: ssl.SSLContext, certificates: tuple[Certificate, ...]) -> None:
            """Load certificates, which replace others of the same types of keys."""
            content = {item.key_type: item for item in loaded.get(context, [])}
            content.update({item.key_type: item for item in certificates})
            loaded[context] = [*content.values()]

        def build(options: object, certificates: tuple[Certificate, ...]) -> ssl.SSLContext:
            """Build a context, at no cost."""
            context = ssl.SSLContext.__new__(ssl.SSLContext, ssl.PROTOCOL_TLS_SERVER)
            load(context, certificates)
            return context

        contexts: FrontendContexts | None = None
        settings = FrontendTlsSettings(strict_sni=strict)
        with mock.patch.multiple(selection, build_context=build, load_certificates=load):
            for content in (before, after):
                certificates = [
                    certificate(number, *fields) for number, fields in enumerate(content)
                ]
                present = None if contexts is None else contexts.active
                prepared = prepare_contexts(settings, "tcp", certificates, None, present)
                if contexts is None:
                    contexts = FrontendContexts(prepared)
                else:
                    contexts.commit(prepared)
                for name in names:
                    self.check(contexts, loaded, certificates, name, strict)

    def check(
        self,
        contexts: FrontendContexts,
        loaded: dict[ssl.SSLContext, list[Certificate]],
        certificates: list[Certificate],
        name: str | None,
        strict: bool,
    ) -> None:
        """Compare the selection for one name."""
        expected = expected_certificates(certificates, name)
        if expected is None and strict:
            error = self.assertRaises(AlertError, contexts.select, ClientHello(name))
            self.assertEqual(error.description, UNRECOGNIZED_NAME)
            return
        selected = loaded[contexts.select(ClientHello(name))]
        if expected is None:
            self.assertIn(certificates[0], selected)
        else:
            self.assertEqual(set(selected), set(expected))
