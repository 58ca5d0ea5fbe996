"""State as text: what is read back, and what is said of anything else."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.addresses import parse_server_address
from balancebeam.core.addresses import ServerAddress, TcpAddress, UnixAddress
from balancebeam.core.settings import AdminState
from balancebeam.state.codec import ServerState, State, decode_state, encode_state

LABEL = st.from_regex(r"[a-z_]([a-z0-9_-]{0,6}[a-z])?", fullmatch=True)
HOST = st.one_of(
    st.lists(LABEL, min_size=1, max_size=3).map(".".join),
    st.sampled_from(["unix", "http", "https", "fe80::1%eth0"]),
    st.ip_addresses().map(str),
)
ADDRESS: st.SearchStrategy[ServerAddress] = st.one_of(
    st.builds(TcpAddress, HOST, st.integers(1, 65535)),
    st.builds(UnixAddress, st.text(max_size=25).map(lambda text: "/" + text.replace("\0", ""))),
)
WEIGHT = st.none() | st.integers(0, 256)
SERVER = st.builds(ServerState, ADDRESS, WEIGHT, WEIGHT, st.sampled_from(AdminState), st.booleans())
POOL = st.lists(SERVER, max_size=4, unique_by=lambda server: server.address).map(tuple)
STATE = st.builds(State, st.dictionaries(st.text(max_size=8), POOL, max_size=3))

ONE = State(
    {
        "wéb": (
            ServerState(TcpAddress("10.0.0.1", 80), 3, 1, AdminState.DRAIN),
            ServerState(UnixAddress("/run/app"), registered=True),
        ),
        "empty": (),
    }
)

TEXT = """\
{
  "format": "balancebeam state",
  "version": 1,
  "pools": {
    "wéb": [
      {
        "address": "10.0.0.1:80",
        "weight": 3,
        "configured_weight": 1,
        "admin_state": "drain",
        "registered": false
      },
      {
        "address": "unix:/run/app",
        "weight": null,
        "configured_weight": null,
        "admin_state": "ready",
        "registered": true
      }
    ],
    "empty": []
  }
}
"""


def with_pools(pools: Any) -> bytes:
    """A file of ours, but for what its pools are."""
    return json.dumps({"format": "balancebeam state", "version": 1, "pools": pools}).encode()


def with_server(**changes: Any) -> bytes:
    """A file of ours with one server that has something strange about it."""
    return with_pools({"p": [{"address": "a:80", **changes}]})


class CodecTestCase(SynchronousTestCase):
    """What both kinds of tests use."""

    def refused(self, data: bytes) -> str:
        """What is said of `data`, which is not read."""
        message = str(self.assertRaises(ValueError, decode_state, data))
        self.assertLess(len(message), 600)
        # Logs are UTF-8, and have lines.
        self.assertNotIn("\n", message)
        message.encode()
        return message


class DecodingTests(CodecTestCase):
    """What is read back."""

    def test_what_it_looks_like(self) -> None:
        self.assertEqual(encode_state(ONE).decode(), TEXT)
        self.assertEqual(decode_state(TEXT.encode()), ONE)

    def test_nothing(self) -> None:
        self.assertEqual(decode_state(encode_state(State({}))), State({}))

    def test_what_is_left_out_is_as_usual(self) -> None:
        self.assertEqual(
            decode_state(with_server()),
            State({"p": (ServerState(TcpAddress("a", 80)),)}),
        )

    def test_a_host_that_is_called_unix(self) -> None:
        address = parse_server_address("http://unix:80")
        state = State({"p": (ServerState(address),)})
        self.assertEqual(decode_state(encode_state(state)), state)

    def test_a_name_that_cannot_be_written(self) -> None:
        self.assertRaises(ValueError, encode_state, State({"\ud800": ()}))

    @given(STATE)
    def test_round_trip(self, state: State) -> None:
        self.assertEqual(decode_state(encode_state(state)), state)


class InvalidStateTests(CodecTestCase):
    """What is no state, and what is said of it."""

    def test_another_thing(self) -> None:
        for data, words in (
            (b"", "it is empty"),
            (b" \n", "it is empty"),
            (b"\xff", "it is not UTF-8: octet 0"),
            (b"\xed\xa0\x80", "it is not UTF-8"),
            (b"\0" * 4096, "it is not JSON"),
            (b"[frontend]\n", "it is not JSON"),
            (b"{'a': 1}", "it is not JSON"),
            (TEXT.encode() * 2, "it is not JSON: Extra data"),
            (b'{"a": NaN}', "NaN"),
            (b'{"a": -Infinity}', "-Infinity"),
            (b'{"a": %b}' % (b"9" * 1_000_000), "1000000 digits"),
            (b'{"a": 1, "a": 2}', "'a' twice"),
            (b"null", "another format"),
            (b"[]", "another format"),
            (b"{}", "another format"),
            (b'{"format": ["balancebeam state"]}', "another format"),
            (b'{"format": "other", "version": 1e999}', "another format"),
        ):
            self.assertIn(words, self.refused(data))

    def test_nesting(self) -> None:
        for opening in (b"[", b'{"a":', b'{"format": "balancebeam state", "pools": [['):
            for closing in (b"", b"]" * 100_000):
                message = self.refused(opening * 100_000 + closing)
                self.assertTrue("too deep" in message or "JSON" in message, message)
        self.assertEqual(self.refused(b"[" * 100_000), "it is nested too deep")

    def test_versions(self) -> None:
        self.assertIn("version 2, and only 1 is known", self.refused(self.version(2)))
        for version in (0, -1, True, 1.0, "1", None, [1]):
            self.assertIn("no valid version", self.refused(self.version(version)))

    def version(self, version: Any) -> bytes:
        return json.dumps({"format": "balancebeam state", "version": version, "x": 1}).encode()

    def test_pools(self) -> None:
        for pools, words in (
            (None, "its pools are no object"),
            ([], "its pools are no object"),
            ({"p": {}}, "the pool 'p' is no list"),
            ({"p": [1]}, "the pool 'p', server 1 is no object: 1"),
            ({"p": [{"address": "a:1"}, {}]}, "'p', server 2: its address is no text: None"),
            ({"p": [{"address": "a:1"}, {"address": "http://a:1"}]}, "'p' has a:1 twice"),
            ({"\ud800": []}, "half a character"),
        ):
            self.assertIn(words, self.refused(with_pools(pools)))
        other = with_pools({}).replace(b'"pools"', b'"other": 1, "pools"')
        self.assertEqual(
            self.refused(other), "it: 'other' is not known; there is format, version, pools"
        )
        self.assertIn("no object", self.refused(b'{"format": "balancebeam state", "version": 1}'))

    def test_servers(self) -> None:
        for changes, words in (
            ({"address": "a"}, "'p', server 1: invalid address 'a': expected host:port"),
            ({"address": "a:0"}, "from 1 to 65535"),
            ({"address": "unix:x"}, "expected unix:/path"),
            ({"address": "https://a"}, "TLS"),
            ({"address": "unix:/\udc80"}, "expected unix:/path"),
            ({"address": "\ud800:80"}, "expected a host name"),
            ({"address": "x" * 100_000}, "…"),
            ({"address": ["a:80"]}, "no text"),
            ({"weight": 257}, "weight is a whole number from 0 to 256, not 257"),
            ({"weight": -1}, "not -1"),
            ({"weight": 1.0}, "not 1.0"),
            ({"weight": True}, "not True"),
            ({"weight": "3"}, "not '3'"),
            ({"configured_weight": 10**19}, "configured_weight is a whole"),
            (
                {"admin_state": "gone"},
                "admin_state is one of ready, drain, maintenance, not 'gone'",
            ),
            ({"admin_state": None}, "admin_state is one of"),
            ({"admin_state": []}, "admin_state is one of"),
            ({"registered": 1}, "registered is true or false, not 1"),
            ({"registered": None}, "registered is true or false"),
            ({"wieght": 3}, "'p', server 1: 'wieght' is not known; there is address, weight,"),
            ({"\ud800" * 1000: 3}, "is not known"),
        ):
            self.assertIn(words, self.refused(with_server(**changes)))

    def test_cut_off_anywhere(self) -> None:
        data = TEXT.encode()
        for length in range(1, len(data) - 1):
            message = self.refused(data[:length])
            # Half of an é is no UTF-8.
            self.assertTrue(message.startswith(("it is cut off", "it is not UTF-8")), message)
        self.assertEqual(decode_state(data[:-1]), ONE)

    def valid_or_refused(self, data: bytes) -> None:
        try:
            state = decode_state(data)
        except ValueError:
            self.refused(data)
        else:
            self.assertEqual(decode_state(encode_state(state)), state)

    @given(st.binary(max_size=200))
    def test_random_octets(self, data: bytes) -> None:
        self.valid_or_refused(data)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_random_json(self, value: Any) -> None:
        for content in (value, {"p": value}, {"p": [value]}):
            self.valid_or_refused(with_pools(content))
        for key in ("address", "weight", "configured_weight", "admin_state", "registered"):
            self.valid_or_refused(with_server(**{key: value}))

    @given(STATE, st.randoms(use_true_random=False), st.integers(1, 4))
    def test_mutations(self, state: State, chance: random.Random, times: int) -> None:
        data = encode_state(state)
        for _ in range(times):
            start = chance.randrange(len(data) + 1)
            end = min(len(data), start + chance.randrange(4))
            inside = data[end : end + chance.randrange(20)] * chance.randrange(3)
            extra = bytes(chance.choices(b'"{}[]:,\\ud800-1Ee.\xff\0', k=chance.randrange(3)))
            data = data[:start] + extra + inside + data[end:]
        self.valid_or_refused(data)

    @given(STATE, st.data())
    def test_torn_encodings(self, state: State, source: st.DataObject) -> None:
        data = encode_state(state)
        length = source.draw(st.integers(0, len(data) - 2))
        self.refused(data[:length])
        # What some file systems leave of a file whose end was not written yet.
        self.refused(data[:length] + b"\0" * (len(data) - length))
