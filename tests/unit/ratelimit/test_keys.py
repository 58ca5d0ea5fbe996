"""Key functions: which requests a limit counts together."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.uri import has_prefix
from balancebeam.ratelimit.keys import build_key_function
from tests.helpers.limiters import FakeRequest, examples_80

ADDRESSES = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    st.integers(0, 2**70).map(lambda number: IPv6Address((0x20010DB8 << 96) | number)),
)


class ClientKeyTests(SynchronousTestCase):
    """IPv4 clients are counted by address, IPv6 clients by network."""

    def key(self, client: str, prefix: int = 64) -> bytes | None:
        """The key of a client."""
        return build_key_function(["client"], prefix)(FakeRequest(client))

    def test_examples(self) -> None:
        """Clients of one IPv6 network share a key; others, and IPv4 clients, do not."""
        client = "2001:db8:1:200::1"
        self.assertEqual(self.key(client), self.key("2001:db8:1:200:ffff::9"))
        self.assertNotEqual(self.key(client), self.key("2001:db8:1:201::1"))
        self.assertNotEqual(self.key("192.0.2.1"), self.key("192.0.2.2"))
        for prefix, neighbour, stranger in (
            (48, "2001:db8:1:ffff::", "2001:db8:2:200::1"),
            (56, "2001:db8:1:2ff::", "2001:db8:1:300::"),
            (57, "2001:db8:1:27f::", "2001:db8:1:280::"),
            (128, client, "2001:db8:1:200::2"),
        ):
            self.assertEqual(self.key(client, prefix), self.key(neighbour, prefix))
            self.assertNotEqual(self.key(client, prefix), self.key(stranger, prefix))

    @examples_80
    @given(ADDRESSES, ADDRESSES, st.one_of(st.integers(1, 128), st.integers(56, 64)))
    def test_one_key_per_network(
        self, first: IPv4Address | IPv6Address, second: IPv4Address | IPv6Address, prefix: int
    ) -> None:
        """Two clients have the same key exactly if they are in the same network."""
        networks = []
        for client in (first, second):
            # An IPv4-mapped IPv6 address is an IPv4 client.
            address = getattr(client, "ipv4_mapped", None) or client
            networks.append(
                ip_network((address, prefix if address.version == 6 else 32), strict=False)
            )
        keys = [self.key(str(client), prefix) for client in (first, second)]
        self.assertEqual(keys[0] == keys[1], networks[0] == networks[1])
        self.assertLessEqual(max(len(key or b"") for key in keys), 24)

    def test_networks_never_equal_ipv4_clients(self) -> None:
        """An IPv6 network never has the key of the IPv4 client with the same bytes."""
        client = IPv4Address("32.1.13.184")
        for prefix in range(1, 129):
            network = IPv6Address(int(client) << 96)
            self.assertNotEqual(
                self.key(str(network), prefix), self.key(str(client), prefix), msg=str(prefix)
            )

    def test_peer_without_an_address(self) -> None:
        """Clients without an IP address share a key."""
        self.assertEqual(self.key("unknown"), b"unknown")


class KeyTests(SynchronousTestCase):
    """Keys of hosts and fields, joined keys, and invalid keys."""

    def key(self, name: str, request: FakeRequest) -> bytes | None:
        """The key of a request."""
        return build_key_function([name])(request)

    def test_hosts(self) -> None:
        """All spellings of a host, with or without port, have the same key."""
        spellings = (b"example.com", b"EXAMPLE.com", b"Example.Com:8080", b"example.com:")
        for host in (*spellings, b"example.com.", b"example.com.:80", b"%65xample.com"):
            self.assertEqual(self.key("host", FakeRequest(host=host)), b"example.com")
        for host in (b"[2001:DB8::1]", b"[2001:db8::1]:443"):
            self.assertEqual(self.key("host", FakeRequest(host=host)), b"[2001:db8::1]")
        self.assertNotEqual(
            self.key("host", FakeRequest(host=b"example.com")),
            self.key("host", FakeRequest(host=b"example.org")),
        )
        self.assertEqual(self.key("host", FakeRequest(host=None)), b"")

    def test_fields(self) -> None:
        """A field is the key by its value; its name is compared without regard to case."""

        def key(*values: bytes, name: bytes = b"x-key", configured: str = "X-Key") -> bytes | None:
            fields = tuple((name, value) for value in values)
            return self.key("header:" + configured, FakeRequest(fields=((b"other", b"x"), *fields)))

        self.assertEqual(key(b"one"), b"one")
        self.assertEqual(key(b"one", name=b"X-KEY", configured="x-kEY"), b"one")
        self.assertEqual(key(b"one", configured="x_key"), b"one")
        different = {key(), key(b""), key(b"one"), key(b"ONE"), key(b"one", b"one"), key(b"two")}
        self.assertEqual(len(different), 6)
        # Servers do not agree on which field line counts.
        self.assertEqual(key(b"one", b"two"), key(b"two", b"three", b"four"))

    def test_fields_that_are_not_forwarded(self) -> None:
        """Fields that the balancer sets or removes are no keys."""
        for name in ("Connection", "via", "X-Forwarded-For", "X_Forwarded_For", "Forwarded"):
            with self.assertRaises(ValueError) as caught:
                build_key_function(["header:" + name])
            self.assertIn("expected a field that is forwarded", str(caught.exception))

    @examples_80
    @given(st.integers(0, 2000), st.integers(0, 2000))
    def test_long_keys_are_shortened(self, first: int, second: int) -> None:
        """Keys have at most 24 bytes, and differ if the values differ."""
        names = ("host", "header:x", "path:/" + "p" * 200)
        keys = []
        for size in (first, second):
            request = FakeRequest(
                host=b"h" * size, target=b"/" + b"p" * 200, fields=((b"x", b"v" * size),)
            )
            keys_of_size = [self.key(name, request) for name in names]
            keys_of_size.append(build_key_function(["client", *names])(request))
            self.assertTrue(all(key is not None and len(key) <= 24 for key in keys_of_size))
            keys.append(keys_of_size)
        for index in (0, 1, 3):
            self.assertEqual(keys[0][index] == keys[1][index], first == second)

    @examples_80
    @given(st.data())
    def test_different_parts_have_different_keys(self, data: st.DataObject) -> None:
        """Two combinations of parts never join to the same key."""
        # The texts contain the separators of joined keys.
        text = st.text("1:,a2", max_size=9).map(str.encode)
        clients = st.sampled_from(("192.0.2.1", "2001:db8::1", "49.58.97.49", "unknown"))
        names = data.draw(st.permutations(("client", "host", "header:x", "header:y", "path:/")))
        used = names[: data.draw(st.integers(2, 5))]
        key_function = build_key_function(used)
        parts_by_key: dict[bytes | None, list[object]] = {}
        for _ in range(8):
            host, x, y = data.draw(text), data.draw(text), data.draw(text)
            request = FakeRequest(data.draw(clients), host, fields=((b"x", x), (b"y", y)))
            values: dict[str, object] = {
                "client": request.client,
                "host": re.sub(rb":[0-9]*$", b"", host),
                "header:x": x,
                "header:y": y,
                "path:/": "",
            }
            parts = [values[name] for name in used]
            self.assertEqual(parts_by_key.setdefault(key_function(request), parts), parts)

    def test_boundaries_of_parts_count(self) -> None:
        """Parts that concatenate to the same bytes have different keys."""
        key_function = build_key_function(["header:x", "header:y"])
        pairs = [(b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"), (b"abc", b""), (b"1:a", b"2:b")]
        pairs += [(b"1:a1:", b"b"), (b"a", b"1:b"), (b"a1", b":b"), (b"a,", b"b"), (b"a", b",b")]
        keys = {key_function(FakeRequest(fields=((b"x", x), (b"y", y)))) for x, y in pairs}
        self.assertEqual(len(keys), len(pairs))

    def test_invalid_keys(self) -> None:
        """Invalid names, an empty key and invalid prefixes are rejected with the form."""
        invalid = (
            "clients",
            "Client",
            "client:1",
            "host:",
            "header",
            "header:",
            "header:a b",
            "header:a:b",
            "path:",
            "path:v1",
            "",
        )
        for name in invalid:
            with self.assertRaises(ValueError) as caught:
                build_key_function(["host", name])
            self.assertIn(repr(name), str(caught.exception))
            self.assertIn("client, host, header:NAME or path:/PREFIX", str(caught.exception))
        with self.assertRaises(ValueError) as caught:
            build_key_function([])
        self.assertIn("such as client", str(caught.exception))
        for prefix in (0, -1, 129):
            with self.assertRaises(ValueError) as caught:
                build_key_function(["client"], prefix)
            self.assertIn("expected 1 to 128", str(caught.exception))


class PathTests(SynchronousTestCase):
    """Path keys: whether a target is below a prefix, however it is spelled."""

    BELOW = (
        b"/v1",
        b"/v1/",
        b"/v1/x",
        b"//v1",
        b"///v1//x",
        b"/./v1",
        b"/v1/.",
        b"/%76%31",
        b"/%76%31%2Fx",
        b"/%2fv1",
        b"/v1?x",
        b"/v1?/../..",
        b"/v1/x?y=/v2",
        b"/v2/../v1",
        b"/v2/%2e%2E/v1/x",
        b"/../v1",
        b"/../../v1/x",
        b"//%2e/%76%31//./x/..?y",
        b"/v2/..//./%761",
        b"/v1;x",
        b"/v1;x=/y/z",
        b"\\v1",
        b"/v2\\..\\v1",
        # For a server that does not resolve dot segments.
        b"/v1/../v2",
        b"/v1/%2e%2e/v2",
        b"/v1/..",
    )
    NOT_BELOW = (
        b"/",
        b"",
        b"*",
        b"/v10",
        b"/v1x/y",
        b"/v",
        b"/V1",
        b"/v2/v1",
        b"/v2?/v1",
        b"/v2?/../v1",
        b"/v1%30",
        b"/v1%3Fx",
        b"//v10",
        b"/v10;/v1",
        b"/v1./x",
    )

    def test_examples(self) -> None:
        """Every spelling of a path below /v1 is counted, and no other path."""
        key_function = build_key_function(["path:/v1"])
        for target in self.BELOW:
            self.assertTrue(has_prefix(target, b"/v1"), msg=repr(target))
            self.assertEqual(key_function(FakeRequest(target=target)), b"/v1")
        for target in self.NOT_BELOW:
            self.assertFalse(has_prefix(target, b"/v1"), msg=repr(target))
            self.assertIsNone(key_function(FakeRequest(target=target)))

    def test_everything_is_below_the_root(self) -> None:
        """Every target is below /."""
        for target in (*self.BELOW, *self.NOT_BELOW):
            self.assertTrue(has_prefix(target, b"/"), msg=repr(target))
            self.assertIsNotNone(build_key_function(["path:/"])(FakeRequest(target=target)))

    def test_spellings_of_the_prefix(self) -> None:
        """The configured prefix is normalized as well."""
        for name in ("path:/v1", "path:/v1/", "path://v1", "path:/%761", "path:/v2/../v1"):
            key_function = build_key_function([name, "client"])
            self.assertIsNotNone(key_function(FakeRequest(target=b"/v1/x")), msg=name)
            self.assertIsNone(key_function(FakeRequest(target=b"/v10")), msg=name)
