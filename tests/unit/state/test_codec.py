"""The format of the state file: round trips, and errors for invalid files."""

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
SERVER = st.builds(
    ServerState,
    ADDRESS,
    WEIGHT,
    WEIGHT,
    st.sampled_from(AdminState),
    st.booleans(),
    st.booleans(),
)
POOL = st.lists(SERVER, max_size=4, unique_by=lambda server: server.address).map(tuple)
STATE = st.builds(State, st.dictionaries(st.text(max_size=8), POOL, max_size=3))

STATE_EXAMPLE = State(
    {
        "wéb": (
            ServerState(TcpAddress("10.0.0.1", 80), 3, 1, AdminState.DRAIN),
            ServerState(UnixAddress("/run/app"), registered=True),
        ),
        "empty": (),
    }
)

ENCODED_EXAMPLE = """\
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
    """A state file with these `pools`."""
    return json.dumps({"format": "balancebeam state", "version": 1, "pools": pools}).encode()


def with_server(**changes: Any) -> bytes:
    """A state file with one server that has these keys beside its address."""
    return with_pools({"p": [{"address": "a:80", **changes}]})


class CodecTestCase(SynchronousTestCase):
    """Helpers for valid and invalid files."""

    def decoding_error(self, data: bytes) -> str:
        """The message of the error for `data`: a short line of UTF-8."""
        message = str(self.assertRaises(ValueError, decode_state, data))
        self.assertLess(len(message), 600)
        # The message goes into the log, which is UTF-8 and has lines.
        self.assertNotIn("\n", message)
        message.encode()
        return message


class DecodingTests(CodecTestCase):
    """Valid files."""

    def test_format(self) -> None:
        """The format is readable JSON, and is decoded to the same state."""
        self.assertEqual(encode_state(STATE_EXAMPLE).decode(), ENCODED_EXAMPLE)
        self.assertEqual(decode_state(ENCODED_EXAMPLE.encode()), STATE_EXAMPLE)

    def test_empty_state(self) -> None:
        """A state without pools survives encoding and decoding."""
        self.assertEqual(decode_state(encode_state(State({}))), State({}))

    def test_defaults(self) -> None:
        """Missing keys of a server have default values."""
        self.assertEqual(
            decode_state(with_server()),
            State({"p": (ServerState(TcpAddress("a", 80)),)}),
        )

    def test_host_named_unix(self) -> None:
        """A host called unix is not mistaken for the path of a socket."""
        address = parse_server_address("http://unix:80")
        state = State({"p": (ServerState(address),)})
        self.assertEqual(decode_state(encode_state(state)), state)

    def test_pool_name_with_lone_surrogate(self) -> None:
        """A pool name with a lone surrogate cannot be encoded."""
        self.assertRaises(ValueError, encode_state, State({"\ud800": ()}))

    @given(STATE)
    def test_round_trip(self, state: State) -> None:
        """Any state survives encoding and decoding."""
        self.assertEqual(decode_state(encode_state(state)), state)


class InvalidStateTests(CodecTestCase):
    """Invalid files, and the errors about them."""

    def test_other_content(self) -> None:
        """Content that is not a state file is rejected with the reason."""
        for data, text in (
            (b"", "empty file"),
            (b" \n", "empty file"),
            (b"\xff", "invalid UTF-8 at byte 0"),
            (b"\xed\xa0\x80", "invalid UTF-8"),
            (b"\0" * 4096, "invalid JSON"),
            (b"[frontend]\n", "invalid JSON"),
            (b"{'a': 1}", "invalid JSON"),
            (ENCODED_EXAMPLE.encode() * 2, "invalid JSON: Extra data"),
            (b'{"a": NaN}', "NaN"),
            (b'{"a": -Infinity}', "-Infinity"),
            (b'{"a": %b}' % (b"9" * 1_000_000), "1000000 digits"),
            (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
            (b"null", "unknown format"),
            (b"[]", "unknown format"),
            (b"{}", "unknown format"),
            (b'{"format": ["balancebeam state"]}', "unknown format"),
            (b'{"format": "other", "version": 1e999}', "unknown format"),
        ):
            self.assertIn(text, self.decoding_error(data))

    def test_deep_nesting(self) -> None:
        """Deeply nested JSON is rejected without a RecursionError."""
        for opening in (b"[", b'{"a":', b'{"format": "balancebeam state", "pools": [['):
            for closing in (b"", b"]" * 100_000):
                message = self.decoding_error(opening * 100_000 + closing)
                self.assertTrue("too deeply" in message or "JSON" in message, message)
        self.assertEqual(self.decoding_error(b"[" * 100_000), "invalid JSON: nested too deeply")

    def test_versions(self) -> None:
        """Another version is rejected, before unknown keys are."""
        self.assertIn(
            "unsupported version 2: expected 1", self.decoding_error(self.with_version(2))
        )
        for version in (0, -1, True, 1.0, "1", None, [1]):
            self.assertIn("invalid version", self.decoding_error(self.with_version(version)))

    def with_version(self, version: Any) -> bytes:
        """A state file of this version with an unknown key."""
        return json.dumps({"format": "balancebeam state", "version": version, "x": 1}).encode()

    def test_pools(self) -> None:
        """Invalid pools, duplicate servers and unknown keys are rejected with their position."""
        for pools, text in (
            (None, "invalid pools"),
            ([], "invalid pools"),
            ({"p": {}}, "pool 'p': invalid value {}: expected a list"),
            ({"p": [1]}, "pool 'p', server 1: invalid value 1: expected an object"),
            (
                {"p": [{"address": "a:1"}, {}]},
                "'p', server 2: invalid address None: expected a string",
            ),
            ({"p": [{"address": "a:1"}, {"address": "http://a:1"}]}, "'p': duplicate server a:1"),
            ({"\ud800": []}, "lone surrogate"),
        ):
            self.assertIn(text, self.decoding_error(with_pools(pools)))
        other = with_pools({}).replace(b'"pools"', b'"other": 1, "pools"')
        self.assertEqual(
            self.decoding_error(other),
            "top level: unknown key 'other': expected format, version, pools",
        )
        self.assertIn(
            "expected an object",
            self.decoding_error(b'{"format": "balancebeam state", "version": 1}'),
        )

    def test_servers(self) -> None:
        """Invalid values of a server are rejected with their position and the expected form."""
        for changes, text in (
            ({"address": "x" * 100_000}, "…"),
            ({"address": ["a:80"]}, "expected a string"),
            ({"weight": 257}, "invalid weight 257: expected an integer from 0 to 256"),
            ({"weight": -1}, "invalid weight -1"),
            ({"weight": 1.0}, "invalid weight 1.0"),
            ({"weight": True}, "invalid weight True"),
            ({"weight": "3"}, "invalid weight '3'"),
            ({"configured_weight": 10**19}, "invalid configured_weight"),
            (
                {"admin_state": "gone"},
                "admin_state: invalid state 'gone': expected one of ready, drain, maintenance",
            ),
            ({"admin_state": None}, "admin_state: invalid state"),
            ({"admin_state": []}, "admin_state: invalid state"),
            ({"registered": 1}, "invalid registered 1: expected true or false"),
            ({"registered": None}, "invalid registered None"),
            ({"tls": "yes"}, "invalid tls 'yes': expected true or false"),
            ({"tls": None}, "invalid tls None"),
            ({"wieght": 3}, "'p', server 1: unknown key 'wieght': expected address, weight,"),
            ({"\ud800" * 1000: 3}, "unknown key"),
        ):
            self.assertIn(text, self.decoding_error(with_server(**changes)))

    def test_addresses(self) -> None:
        """An invalid address is rejected with its position and the reason."""
        for address in ("a", "a:0", "unix:x", "https://a", "unix:/\udc80", "\ud800:80"):
            reason = str(self.assertRaises(ValueError, parse_server_address, address))
            message = self.decoding_error(with_server(address=address))
            self.assertEqual(message, f"pool 'p', server 1: {reason}")

    def test_tls(self) -> None:
        """A server with TLS has a key for it; a file without the key has servers without TLS."""
        server = ServerState(TcpAddress("a", 80), registered=True, tls=True)
        (encoded,) = json.loads(encode_state(State({"p": (server,)})))["pools"]["p"]
        self.assertEqual((encoded["address"], encoded["tls"]), ("a:80", True))
        self.assertEqual(
            decode_state(with_server(registered=True, tls=True)), State({"p": (server,)})
        )
        self.assertNotIn(b'"tls"', encode_state(STATE_EXAMPLE))
        (plain,) = decode_state(with_server(registered=True)).pools["p"]
        self.assertFalse(plain.tls)

    def test_truncated_anywhere(self) -> None:
        """A file that is cut off at any byte is rejected as truncated."""
        data = ENCODED_EXAMPLE.encode()
        for length in range(1, len(data) - 1):
            message = self.decoding_error(data[:length])
            # Half of an é is not UTF-8.
            self.assertTrue(message.startswith(("truncated file", "invalid UTF-8")), message)
        self.assertEqual(decode_state(data[:-1]), STATE_EXAMPLE)

    def check_decoding(self, data: bytes) -> None:
        """Decode `data`: the result can be encoded, or there is a proper error."""
        try:
            state = decode_state(data)
        except ValueError:
            self.decoding_error(data)
        else:
            self.assertEqual(decode_state(encode_state(state)), state)

    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        """Random bytes cause no other error than ValueError."""
        self.check_decoding(data)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_random_json(self, value: Any) -> None:
        """Random JSON in place of any value causes no other error than ValueError."""
        for content in (value, {"p": value}, {"p": [value]}):
            self.check_decoding(with_pools(content))
        for key in ("address", "weight", "configured_weight", "admin_state", "registered"):
            self.check_decoding(with_server(**{key: value}))

    @given(STATE, st.randoms(use_true_random=False), st.integers(1, 4))
    def test_mutations(self, state: State, rng: random.Random, times: int) -> None:
        """Mutated files cause no other error than ValueError."""
        data = encode_state(state)
        for _ in range(times):
            start = rng.randrange(len(data) + 1)
            end = min(len(data), start + rng.randrange(4))
            inside = data[end : end + rng.randrange(20)] * rng.randrange(3)
            extra = bytes(rng.choices(b'"{}[]:,\\ud800-1Ee.\xff\0', k=rng.randrange(3)))
            data = data[:start] + extra + inside + data[end:]
        self.check_decoding(data)

    @given(STATE, st.data())
    def test_truncated_states(self, state: State, source: st.DataObject) -> None:
        """Any truncated state is rejected, also with its rest as zeros."""
        data = encode_state(state)
        length = source.draw(st.integers(0, len(data) - 2))
        self.decoding_error(data[:length])
        # After a crash, some file systems leave zeros where data was not written yet.
        self.decoding_error(data[:length] + b"\0" * (len(data) - length))
