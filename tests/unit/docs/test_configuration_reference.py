"""`docs/configuration.rst` has every key that the reader accepts, with its default."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.dump import dump
from balancebeam.config.reader import Table
from balancebeam.config.toml_file import finalize, load_file
from tests.helpers.documentation import Entry, entries

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Every table that there is, with nothing but what it cannot do without.
EVERY_TABLE = """
[[frontend]]
[frontend.timeouts]
[frontend.forwarding]
[frontend.tls]
client_ca = "clients.pem"
[[frontend.limit]]
requests = 1
[[frontend.route]]
pool = "app"
host = "a.example"
[[frontend.route.limit]]
requests = 1

[[frontend]]
name = "tcp"
bind = "127.0.0.1:1102"
mode = "tcp"
pool = "tcp"

[[frontend]]
name = "plain"
bind = "127.0.0.1:1103"

[[pool]]
upstreams = [{address = "127.0.0.1:1"}]
[pool.timeouts]
[pool.health]
[pool.passive]
[pool.retries]
[pool.queue]
[pool.tls]
[[pool.limit]]
requests = 1

[[pool]]
name = "tcp"
upstreams = ["127.0.0.1:2"]

[admin]

[acme]
storage = "acme"
"""

# Keys without which there is an error, for each with a file that lacks it.
REQUIRED = {
    "limit.requests": "[frontend.limit]",
    "frontend.route.pool": '[frontend.route]\npath = "/"',
    "pool.upstreams.address": "[pool]\nupstreams = [{weight = 1}]",
    "acme.storage": "[acme]",
}

# What an example needs around it to be valid, by key, where that is not just its table.
AROUND = {
    "limit.requests": "",
    "frontend.route.pool": 'host = "a.example"\n',
    "frontend.route.host": 'pool = "app"\n',
    "frontend.route.path": 'pool = "app"\n',
    "frontend.log_connections": 'mode = "tcp"\n',
    "frontend.tls.client_auth": 'client_ca = "clients.pem"\n',
    "pool.tls.key": 'cert = "me.pem"\n',
    "acme.directory": 'storage = "acme"\n',
    "acme.email": 'storage = "acme"\n',
    "acme.ca": 'storage = "acme"\n',
}

# Tables that the page describes once, under the last part of their names.
LIMITS = ("frontend.limit", "frontend.route.limit", "pool.limit")


def documented_name(path: tuple[Any, ...]) -> str:
    """The name by which the page has the key at `path` of a file."""
    name = ".".join(part for part in path if isinstance(part, str))
    for prefix in LIMITS:
        if name.startswith(f"{prefix}."):
            return name.replace(prefix, "limit", 1)
    return name


class _Recorder(dict[str, Any]):
    """A table of a file that records the names of the keys that are looked up in it."""

    def __init__(self, path: tuple[Any, ...], content: dict[str, Any], keys: set[str]) -> None:
        super().__init__(content)
        self._path = path
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        self._keys.add(documented_name((*self._path, key)))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._keys.add(documented_name((*self._path, key)))
        return super().get(key, default)


def read(text: str) -> tuple[Any, list[str]]:
    """The settings in a file with this text, and what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "site.toml")
        path.write_text(text, encoding="utf-8")
        return load_file(str(path))


def accepted_keys() -> set[str]:
    """All keys that the reader looks up when it reads `EVERY_TABLE`."""
    keys: set[str] = set()
    original = Table.__init__

    def record(self: Table, document: Any, path: Any, content: dict[str, Any]) -> None:
        original(self, document, path, _Recorder(path, content, keys))

    with patch.object(Table, "__init__", record):
        _, problems = read(EVERY_TABLE)
    assert problems == [], problems
    # Only keys with a value count: the key of a table is a prefix of the keys in it.
    return {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)} - {
        *LIMITS
    } | {"pool.upstreams"}


def defaults() -> dict[str, Any]:
    """The value of each key in the effective configuration of `EVERY_TABLE`."""
    settings, _ = read(EVERY_TABLE)
    found: dict[str, Any] = {}

    def walk(path: tuple[Any, ...], value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk((*path, key), inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            # From the last to the first, because that has the defaults.
            for inner in reversed(value):
                walk(path, inner)
        else:
            found[documented_name(path)] = value

    walk((), tomllib.loads(dump(finalize(settings))))
    # In `EVERY_TABLE` for a TCP frontend, or because they are required.
    found["pool.upstreams"] = []
    for key in (*REQUIRED, "frontend.route.host", "frontend.tls.client_ca"):
        del found[key]
    return found


def example_file(entry: Entry) -> str:
    """A file with the example of a key."""
    table, _, key = entry.names.rpartition(".")
    example = AROUND.get(entry.names, "") + f"{entry.example}\n"
    if table == "limit":
        table = "frontend.limit"
        example = ("" if key == "requests" else "requests = 1\n") + example
    elif table == "pool.upstreams":
        table = "pool"
        address = "" if key == "address" else 'address = "127.0.0.1:1", '
        example = f"upstreams = [{{{address}{entry.example}}}]\n"
    elif entry.names == "pool.health.grpc":
        # The servers need HTTP/2.
        table, example = "pool", f'protocol = "h2"\nhealth = {{{entry.example}}}\n'
    if table.startswith("frontend"):
        # The pools that examples mention.
        example += '[[pool]]\nname = "app"\n[[pool]]\nname = "api"\n'
    return f"[{table}]\n{example}" if table else example


class ConfigurationReference(SynchronousTestCase):
    """The page and the reader of the configuration file agree."""

    def setUp(self) -> None:
        self.entries = {entry.names: entry for entry in entries("configuration.rst", "confval")}

    def test_every_key_is_documented_once(self) -> None:
        """The page has the keys that the reader accepts, and no others."""
        names = [entry.names for entry in entries("configuration.rst", "confval")]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(set(names), accepted_keys())

    def test_defaults(self) -> None:
        """The default of every key is what an empty table has in the effective configuration."""
        expected = defaults()
        for name, entry in self.entries.items():
            text = entry.fields["default"]
            if name in expected:
                self.assertTrue(text.startswith("``") and text.endswith("``"), f"{name}: {text}")
                documented = tomllib.loads(f"value = {text.strip('`')}")["value"]
                self.assertEqual(documented, expected[name], name)
            else:
                self.assertFalse(text.startswith("``"), f"{name} has no fixed default: {text}")
                self.assertEqual(text == "required", name in REQUIRED, name)

    def test_required_keys(self) -> None:
        """A file without a required key is rejected."""
        for name, text in REQUIRED.items():
            _, problems = read(text)
            self.assertTrue(any(name.rpartition(".")[2] in line for line in problems), name)

    def test_every_key_has_a_type_and_a_meaning(self) -> None:
        """Each entry has a type, a default, and text beside its example."""
        for name, entry in self.entries.items():
            self.assertEqual(set(entry.fields), {"type", "default"}, name)
            self.assertGreater(len(entry.text.split("Example:")[0].split()), 3, name)

    def test_examples_are_accepted(self) -> None:
        """The example of every key is a line of TOML that sets this key, and is valid."""
        for name, entry in self.entries.items():
            self.assertIsNotNone(entry.example, name)
            key = name.rpartition(".")[2]
            self.assertTrue(str(entry.example).startswith(f"{key} = "), name)
            _, problems = read(example_file(entry))
            self.assertEqual(problems, [], name)
