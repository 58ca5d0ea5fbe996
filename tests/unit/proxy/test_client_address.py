"""Who the client is, when proxies stand before this one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admission.access_list import AccessList
from balancebeam.core.networks import parse_network
from balancebeam.core.settings import ForwardingSettings
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for, parse_node
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK

PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


def ask(*lines: str) -> bytes:
    """A request with such field lines."""
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def client_ip(*lines: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8")) -> str:
    """Who made a request with such lines that `PROXY` sent."""
    head = RequestHeadParser().parse(ask(*lines)[:-2])
    return TrustedProxies(trusted).client_ip(PROXY, head)


class ForwardedChainTests(SynchronousTestCase):
    """What is read from the fields, from the right."""

    def test_addresses(self) -> None:
        for text, address in (
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:8080", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("", None),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("192.0.2.01", None),
            ("192.0.2.1:port", None),
            ("2001:db8::1%eth0", None),
            ("[192.0.2.1", None),
            ("example.org", None),
            ("\u0661\u0669\u0662.0.2.1", None),
        ):
            self.assertEqual(parse_node(text), address, msg=text)

    def test_x_forwarded_for(self) -> None:
        self.assertEqual(
            list(iter_x_forwarded_for(b"nonsense, 192.0.2.1 ,2001:db8::1")),
            ["2001:db8::1", "192.0.2.1", None],
        )

    def test_forwarded(self) -> None:
        for value, expected in (
            (b"for=192.0.2.1", ["192.0.2.1"]),
            (b'For="[2001:db8::1]:4711"', ["2001:db8::1"]),
            (b"for=192.0.2.1;proto=http;by=203.0.113.43", ["192.0.2.1"]),
            (b"by=203.0.113.43 ; for=192.0.2.1", ["192.0.2.1"]),
            (b"for=192.0.2.1, for=198.51.100.2", ["198.51.100.2", "192.0.2.1"]),
            (b"for=unknown", [None]),
            (b"for=_hidden", [None]),
            (b"proto=http", [None]),
            (b"for=192.0.2.1;for=192.0.2.2", [None]),
            # Not quoted, as RFC 7239, 4 wants it.
            (b"for=[2001:db8::1]", [None]),
            # What stands to the left is nobody's business until it is reached.
            (b'for="x, for=192.0.2.1', ["192.0.2.1", None]),
            (b'"";;,=, for=192.0.2.1', ["192.0.2.1", None, None]),
            (b"", []),
            (b",", [None]),
            (b"for=192.0.2.1, ", [None, "192.0.2.1"]),
        ):
            self.assertEqual(list(iter_forwarded(value)), expected, msg=repr(value))

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60))
    def test_whatever_a_client_invents_stays_on_the_left(self, invented: bytes) -> None:
        self.assertEqual(next(iter_x_forwarded_for(invented + b", 192.0.2.1")), "192.0.2.1")
        self.assertEqual(next(iter_forwarded(invented + b", for=192.0.2.1")), "192.0.2.1")


class ClientAddressTests(SynchronousTestCase):
    """Which of them is taken for the client."""

    def test_the_right_most_that_is_no_trusted_proxy(self) -> None:
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

    def test_what_is_broken_leads_back_to_the_peer(self) -> None:
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

    def test_a_chain_without_end(self) -> None:
        for name, element in (("X-Forwarded-For", "10.1.1.1"), ("Forwarded", "for=10.1.1.1")):
            self.assertEqual(client_ip(f"{name}: " + ",".join([element] * 60)), "10.1.1.1")
            self.assertEqual(client_ip(f"{name}: " + ",".join([element] * 2000)), PROXY)

    def test_nobody_can_have_a_field_forgotten(self) -> None:
        for name in ("Forwarded", "X-Forwarded-For"):
            value = CLIENT if name.startswith("X") else f"for={CLIENT}"
            self.assertEqual(client_ip(f"{name}: {value}", f"Connection: {name}"), CLIENT)

    def test_the_two_fields_are_not_mixed(self) -> None:
        # The proxy writes the one, and passes on the other as the client sent it.
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
    def test_nobody_moves_out_of_its_place(self, invented: str, chain: str, other: str) -> None:
        lines = ("X-Forwarded-For: " + chain.format(invented, CLIENT)).split("\r\n")
        if other:
            lines.append(other.format("198.51.100.9"))
        self.assertEqual(client_ip(*lines), CLIENT)

    def test_peers_on_unix_sockets(self) -> None:
        head = RequestHeadParser().parse(ask(f"X-Forwarded-For: {CLIENT}")[:-2])
        trusted = TrustedProxies(("unix:",))
        self.assertTrue(trusted.contains("unknown"))
        self.assertFalse(trusted.contains(PROXY))
        self.assertEqual(trusted.client_ip("unknown", head), CLIENT)
        self.assertFalse(TrustedProxies(("10.0.0.0/8",)).contains("unknown"))

    def test_networks_as_text(self) -> None:
        self.assertEqual(parse_network("10.1.2.3/8"), "10.0.0.0/8")
        self.assertEqual(parse_network("unix:"), "unix:")
        for wrong in ("", "unix", "10.0.0.0/33", "example.org", "10.0.0.0/8/8"):
            self.assertRaises(ValueError, parse_network, wrong)


class AccessListTests(BalancerTestCase):
    """Who may come in at all."""

    def test_allow_and_deny(self) -> None:
        for allow, deny, client, admitted in (
            ((), (), CLIENT, True),
            (("203.0.113.0/24",), (), CLIENT, True),
            (("203.0.113.0/24",), (), "198.51.100.1", False),
            (("203.0.113.0/24",), (), "unknown", False),
            ((), ("203.0.113.0/24",), CLIENT, False),
            ((), ("203.0.113.0/24",), "198.51.100.1", True),
            (("203.0.113.0/24",), ("203.0.113.7",), CLIENT, False),
            (("2001:db8::/32",), (), "2001:db8::1", True),
        ):
            self.assertEqual(AccessList(allow, deny).allows(client), admitted, msg=client)

    def test_the_answer(self) -> None:
        balancer = self.balancer(deny=("192.0.2.1",))
        client = balancer.client()
        client.send(GET)
        lines = self.assert_error(client.received(), 403)
        self.assertFalse(any(line.startswith(b"Retry-After") for line in lines))
        other = balancer.client("192.0.2.2")
        other.send(GET)
        self.assertEqual(len(balancer.connectors), 1)

    def test_it_is_about_the_client_and_not_the_proxy(self) -> None:
        balancer = self.balancer(allow=(CLIENT,), trusted_proxies=("192.0.2.1",))
        client = balancer.client()
        client.send(ask(f"X-Forwarded-For: {CLIENT}"))
        balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        client.send(ask("X-Forwarded-For: 198.51.100.1"))
        self.assert_error(client.received(), 403)


class ForwardedFieldsTests(BalancerTestCase):
    """What servers are told."""

    def forwarded(self, *lines: str, trusted: bool = False, **style: object) -> list[bytes]:
        """The lines of a request as a server gets them."""
        balancer = self.balancer(
            forwarding=ForwardingSettings(**style),  # type: ignore[arg-type]
            trusted_proxies=("192.0.2.1",) if trusted else (),
        )
        balancer.client().send(ask(*lines))
        return balancer.accept().received().split(b"\r\n")

    def test_forwarded_beside_the_others(self) -> None:
        lines = self.forwarded(forwarded=True)
        self.assertIn(b'Forwarded: for=192.0.2.1;host="a";proto=http', lines)
        self.assertIn(b"X-Forwarded-For: 192.0.2.1", lines)

    def test_forwarded_instead_of_the_others(self) -> None:
        lines = self.forwarded("X-Forwarded-For: 9.9.9.9", x_forwarded=False, forwarded=True)
        self.assertIn(b'Forwarded: for=192.0.2.1;host="a";proto=http', lines)
        self.assertFalse([line for line in lines if line.lower().startswith(b"x-forwarded")])

    def test_what_came_is_continued_only_for_trusted_proxies(self) -> None:
        came = "Forwarded: for=203.0.113.7"
        mine = b'for=192.0.2.1;host="a";proto=http'
        self.assertIn(
            b"Forwarded: for=203.0.113.7, " + mine,
            self.forwarded(came, trusted=True, forwarded=True),
        )
        lines = self.forwarded(came, forwarded=True)
        self.assertEqual([b"Forwarded: " + mine], [n for n in lines if n.startswith(b"Forwarded")])

    def test_ipv6_is_quoted(self) -> None:
        balancer = self.balancer(forwarding=ForwardingSettings(forwarded=True))
        balancer.client("2001:db8::1").send(GET)
        self.assertIn(b'for="[2001:db8::1]"', balancer.accept().received())

    def test_nothing_is_changed_without_it(self) -> None:
        lines = self.forwarded("Forwarded: for=203.0.113.7", "X-Request-Id: abc")
        self.assertIn(b"Forwarded: for=203.0.113.7", lines)
        self.assertIn(b"X-Request-Id: abc", lines)

    def ids(self, lines: list[bytes]) -> list[bytes]:
        found = [line.partition(b": ") for line in lines]
        return [value for name, _, value in found if name.lower() == b"x-request-id"]

    def test_ids_of_requests(self) -> None:
        (made,) = self.ids(self.forwarded(request_id="keep"))
        self.assertRegex(made, rb"\A[0-9a-f]{26}\Z")
        came = "x-request-id: abc"
        self.assertEqual(self.ids(self.forwarded(came, request_id="keep")), [b"abc"])
        (made,) = self.ids(self.forwarded(came, request_id="make"))
        self.assertRegex(made, rb"\A[0-9a-f]{26}\Z")
        (made,) = self.ids(self.forwarded("X-Request-Id:", request_id="keep"))
        self.assertTrue(made)
        lines = self.forwarded("X-Request-Id: a", "X_Request_Id: b", request_id="keep")
        self.assertFalse([line for line in lines if line.startswith(b"X_")])
        (made,) = self.ids(lines)
        self.assertEqual(len(made), 26)

    def test_ids_differ(self) -> None:
        balancer = self.balancer(forwarding=ForwardingSettings(request_id="make"))
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        seen = set()
        for _ in range(5):
            seen.update(self.ids(server.received().split(b"\r\n")))
            server.send(OK)
            client.send(GET)
        self.assertEqual(len(seen), 5)
        server.send(OK)


class TrustedProxiesTests(SynchronousTestCase):
    """Networks of trusted proxies."""

    def test_contains(self) -> None:
        """Addresses of the networks are trusted, for IPv4 and IPv6."""
        trusted = TrustedProxies(("10.0.0.0/8", "2001:db8::/32"))
        for peer, expected in (
            ("10.1.2.3", True),
            ("11.1.2.3", False),
            ("2001:db8::1", True),
            ("::1", False),
            ("unknown", False),
        ):
            for _ in range(2):
                self.assertEqual(trusted.contains(peer), expected, peer)
        self.assertFalse(TrustedProxies(()).contains("10.1.2.3"))
        self.assertRaises(ValueError, TrustedProxies, ("invalid",))

    def test_cache_is_bounded(self) -> None:
        """The cache of checked addresses is bounded."""
        trusted = TrustedProxies(("10.0.0.0/8",))
        for number in range(10000):
            trusted.contains(f"10.0.{number // 250}.{number % 250}")
        self.assertLessEqual(len(trusted._networks._cache), 4096)
