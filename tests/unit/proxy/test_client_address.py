"""The client's address in requests of trusted proxies."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies

PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


def request_head(*lines: str) -> bytes:
    """The head of a request with these additional field lines."""
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, ""]).encode()


def client_ip(*lines: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8")) -> str:
    """The client's address in a request from `PROXY` with these field lines."""
    head = RequestHeadParser().parse(request_head(*lines))
    return TrustedProxies(trusted).client_ip(PROXY, head)


class ClientAddressTests(SynchronousTestCase):
    """The address that is taken for the client."""

    def test_right_most_untrusted_address(self) -> None:
        """The client is the right-most address that is not a trusted proxy."""
        for lines, client in (
            ((), PROXY),
            ((f"X-Forwarded-For: {CLIENT}",), CLIENT),
            ((f"X-Forwarded-For: 198.51.100.1, {CLIENT}",), CLIENT),
            ((f"X-Forwarded-For: {CLIENT}, 10.1.1.1, 10.2.2.2",), CLIENT),
            ((f"X-Forwarded-For: {CLIENT}", "X-Forwarded-For: fd00::1"), CLIENT),
            (("X-Forwarded-For: 10.1.1.1, 10.2.2.2",), "10.1.1.1"),
            ((f"Forwarded: for={CLIENT};proto=https",), CLIENT),
            ((f"Forwarded: for={CLIENT}", "Forwarded: for=10.1.1.1"), CLIENT),
            ((f'Forwarded: for="{CLIENT}:1234", for="[fd00::9]"',), CLIENT),
        ):
            self.assertEqual(client_ip(*lines), client, msg=str(lines))

    def test_malformed_chains(self) -> None:
        """The client is the peer if the chain has an invalid entry before the client."""
        for line in (
            "X-Forwarded-For: nonsense",
            f"X-Forwarded-For: {CLIENT}, unknown",
            f"X-Forwarded-For: {CLIENT}, nonsense, 10.1.1.1",
            f"X-Forwarded-For: {CLIENT},",
            "Forwarded: for=unknown",
            "Forwarded: nonsense",
            f"Forwarded: for={CLIENT}, for=_hidden",
        ):
            self.assertEqual(client_ip(line), PROXY, msg=line)

    def test_long_chains(self) -> None:
        """Chains of trusted proxies are followed up to a bound, then the client is the peer."""
        for name, element in (("X-Forwarded-For", "10.1.1.1"), ("Forwarded", "for=10.1.1.1")):
            self.assertEqual(client_ip(f"{name}: " + ",".join([element] * 60)), "10.1.1.1")
            self.assertEqual(client_ip(f"{name}: " + ",".join([element] * 2000)), PROXY)

    def test_connection_cannot_remove_the_field(self) -> None:
        """A Connection field that names the forwarding field has no effect."""
        for name in ("Forwarded", "X-Forwarded-For"):
            value = CLIENT if name.startswith("X") else f"for={CLIENT}"
            self.assertEqual(client_ip(f"{name}: {value}", f"Connection: {name}"), CLIENT)

    def test_fields_are_not_combined(self) -> None:
        """Forwarded is ignored if there is an X-Forwarded-For."""
        # The proxy writes X-Forwarded-For, and forwards Forwarded as the client sent it.
        spoofed = "Forwarded: for=198.51.100.9"
        self.assertEqual(client_ip(f"X-Forwarded-For: {CLIENT}", spoofed), CLIENT)

    @settings(max_examples=200, deadline=None)
    @given(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
        st.sampled_from(
            ("X-Forwarded-For: {0}, {1}", "X-Forwarded-For: {0}\r\nX-Forwarded-For: {1}")
        ),
        st.sampled_from(("", "Forwarded: for={0}", "X_Forwarded_For: {0}", "X-Real-IP: {0}")),
    )
    def test_forged_values_do_not_change_the_client(
        self, forged: str, chain: str, extra: str
    ) -> None:
        """Whatever a client sends, the address that the proxy appended is the client."""
        lines = ("X-Forwarded-For: " + chain.format(forged, CLIENT)).split("\r\n")
        if extra:
            lines.append(extra.format("198.51.100.9"))
        self.assertEqual(client_ip(*lines), CLIENT)

    def test_peers_on_unix_sockets(self) -> None:
        """A peer on a Unix socket is trusted with `unix:`."""
        head = RequestHeadParser().parse(request_head(f"X-Forwarded-For: {CLIENT}"))
        trusted = TrustedProxies(("unix:",))
        self.assertTrue(trusted.contains("unknown"))
        self.assertFalse(trusted.contains(PROXY))
        self.assertEqual(trusted.client_ip("unknown", head), CLIENT)
        self.assertFalse(TrustedProxies(("10.0.0.0/8",)).contains("unknown"))
