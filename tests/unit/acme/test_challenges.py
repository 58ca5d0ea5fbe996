"""Challenges that are served: http-01 responses and tls-alpn-01 contexts."""

from __future__ import annotations

import contextlib
import hashlib
import ssl

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.acme.challenges import ACME_IDENTIFIER, Challenges
from balancebeam.acme.interfaces import HTTP_01, TLS_ALPN_01, Challenge, ChallengeResponder

HTTP = Challenge(HTTP_01, "a.example.org", "tok-en_1", "tok-en_1.thumbprint")
TLS = Challenge(TLS_ALPN_01, "a.example.org", "token2", "token2.thumbprint")
PREFIX = b"/.well-known/acme-challenge/"


def handshake(context: ssl.SSLContext, *protocols: str) -> ssl.SSLObject:
    """Shake hands in memory; return the side of the client."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client_context.set_alpn_protocols(list(protocols))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="a.example.org")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLError):
                side.do_handshake()
    return client


class HttpTests(SynchronousTestCase):
    """http-01."""

    def test_published_challenge_is_served(self) -> None:
        """The exact path of a challenge has the key authorization, until it is withdrawn."""
        challenges = Challenges()
        responder: ChallengeResponder = challenges
        self.assertIsNone(responder.respond(PREFIX + b"tok-en_1"))
        challenges.publish(HTTP)
        self.assertEqual(responder.respond(PREFIX + b"tok-en_1"), b"tok-en_1.thumbprint")
        challenges.withdraw(HTTP)
        self.assertIsNone(challenges.respond(PREFIX + b"tok-en_1"))

    def test_other_paths_have_no_response(self) -> None:
        """Unknown tokens, queries, and paths that only resemble that of a challenge."""
        challenges = Challenges()
        challenges.publish(HTTP)
        for path in (
            *(b"", b"/", PREFIX, PREFIX + b"tok-en_", PREFIX + b"tok-en_1/", b"tok-en_1"),
            *(PREFIX + b"tok-en_1?a", PREFIX + b"TOK-EN_1", PREFIX + b"../tok-en_1", b"/tok-en_1"),
        ):
            self.assertIsNone(challenges.respond(path), path)

    def test_withdrawal_of_an_unknown_challenge(self) -> None:
        """A second withdrawal has no effect."""
        challenges = Challenges()
        challenges.withdraw(HTTP)
        challenges.withdraw(TLS)


class TlsTests(SynchronousTestCase):
    """tls-alpn-01."""

    def test_validation_certificate(self) -> None:
        """RFC 8737, 3: self-signed for the name, with the digest in a critical extension."""
        challenges = Challenges()
        challenges.publish(TLS)
        client = handshake(challenges.tls_contexts["a.example.org"], "acme-tls/1")
        self.assertEqual(client.selected_alpn_protocol(), "acme-tls/1")
        der = client.getpeercert(True)
        assert der is not None
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["a.example.org"])
        identifier = certificate.extensions.get_extension_for_oid(
            x509.ObjectIdentifier(ACME_IDENTIFIER)
        )
        self.assertTrue(identifier.critical)
        assert isinstance(identifier.value, x509.UnrecognizedExtension)
        digest = hashlib.sha256(b"token2.thumbprint").digest()
        self.assertEqual(identifier.value.value, b"\x04\x20" + digest)

    def test_withdrawn_challenge(self) -> None:
        """The context of a name is there only while its challenge is published."""
        contexts: dict[str, ssl.SSLContext] = {}
        challenges = Challenges(contexts)
        challenges.publish(TLS)
        self.assertEqual(list(contexts), ["a.example.org"])
        challenges.withdraw(TLS)
        self.assertEqual(contexts, {})
