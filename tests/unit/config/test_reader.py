"""Reading tables key by key: unknown keys, and values that are not tables."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.reader import Document, Table, escape_control, suggest
from balancebeam.config.values import integer
from tests.helpers.config import ConfigFileTestCase


class UnknownKeyTests(ConfigFileTestCase):
    """Keys that a table does not have."""

    def test_unknown_keys(self) -> None:
        """An unknown key is reported with the most similar key, or with all keys."""
        self.assert_each_mistake(
            (
                ("demos = 1\n", 1, ["demos", "did you mean demo?"]),
                ("# x\n\n[[frontend]]\nbnid = 1\n", 4, ["frontend.bnid", "did you mean bind?"]),
                ("[frontend.timeouts]\n\nidel = 1\n", 3, ["frontend.timeouts.idel", "idle?"]),
                ("[frontend.timeouts]\nconnect = 1\n", 2, ["connect", "header, idle, tunnel"]),
                (
                    "[frontend.limit]\nrequests = 1\nburts = 1\n",
                    3,
                    ["frontend.limit.burts", "burst?"],
                ),
                ('[frontend.route]\nhots="a"\nhost="a"\npool="app"\n', 2, ["route.hots", "host?"]),
                ("[frontend.forwarding]\nforwarder = true\n", 2, ["forwarder", "forwarded?"]),
                ("[[pool]]\n[[pool]]\nname = 'b'\nfall = 2\n", 4, ["pool.fall", "passive"]),
                ("[pool.health]\nrize = 2\n", 2, ["pool.health.rize", "rise?"]),
                ("[pool.passive]\nfailure = 2\n", 2, ["pool.passive.failure", "failures?"]),
                ("[pool.retries]\nattempt = 2\n", 2, ["pool.retries.attempt", "attempts?"]),
                ("[pool.queue]\nlimits = 2\n", 2, ["pool.queue.limits", "limit?"]),
                ("[pool.timeouts]\nconect = 2\n", 2, ["pool.timeouts.conect", "connect?"]),
                ("[admin]\ntokenfile = 'x'\n", 2, ["admin.tokenfile", "token_file?"]),
                (
                    '[pool]\nupstreams = [\n"a:1",\n{address="b:1",wait=1}]\n',
                    4,
                    ["upstreams.wait"],
                ),
                ('"a\\nb" = 1\n', 1, ['"a\\nb"', "unknown key"]),
            )
        )

    def test_misplaced_keys(self) -> None:
        """A key that is valid elsewhere is reported with the tables in which it belongs."""
        self.assert_each_mistake(
            (
                ("access_log = '-'\n", 1, ["access_log belongs in [[frontend]];"]),
                ("[frontend.timeouts]\nconnect = 1\n", 2, ["belongs in [pool.timeouts];"]),
                ("[pool]\nfall = 2\n", 2, ["belongs in [pool.health];"]),
                ("[pool.health]\ndrain_timeout = 2\n", 2, ["belongs in the top level, above"]),
                ("bind = ':1'\n", 1, ["belongs in [[frontend]] or [admin];"]),
                ("weight = 1\n", 1, ["belongs in [[pool.upstreams]];"]),
                ("burst = 1\n", 1, ["[[frontend.limit]]", "[[pool.limit]]"]),
                ("[frontend]\nhost = 'a'\n", 2, ["belongs in [[frontend.route]];"]),
            )
        )

    def test_suggestions(self) -> None:
        """The suggestion is the most similar choice, or all choices in order."""
        self.assertEqual(suggest("bnid", ("name", "bind")), "did you mean bind?")
        self.assertEqual(suggest("x", ("name", "bind")), "expected one of bind, name")
        self.assertEqual(suggest("x", ("name",)), "expected name")
        self.assertEqual(suggest("x", ()), "expected none")


class TableTests(ConfigFileTestCase):
    """Tables, and values in place of tables."""

    def test_values_in_place_of_tables(self) -> None:
        """A value where a table belongs is reported with the expected header."""
        self.assert_each_mistake(
            (
                ("frontend = 1\n", 1, ["frontend", "[[frontend]]"]),
                ("pool = [1]\n", 1, ["pool", "expected a table"]),
                ("[[frontend]]\ntimeouts = 5\n", 2, ["frontend.timeouts", "expected a table"]),
                ("[[frontend]]\nroute = [5]\n", 2, ["frontend.route", "expected a table"]),
                ("[[frontend]]\nroute = 5\n", 2, ["frontend.route", "[[frontend.route]]"]),
                (
                    "[[frontend]]\nmode = 'tcp'\nlimit = [5]\n",
                    3,
                    ["frontend.limit", "expected a table"],
                ),
                ("[pool]\nhealth = true\n", 2, ["pool.health", "true", "expected a table"]),
                ("[[admin]]\n", 1, ["admin", "expected a table"]),
                ("[frontend]\nmode='tcp'\n[pool]\nhealth=5\n", 4, ["pool.health", "a table"]),
                ("[pool]\nupstreams = 'a:1'\n", 2, ["pool.upstreams", "'a:1'", "a list"]),
            )
        )

    def test_invalid_value_is_replaced_by_the_default(self) -> None:
        """An invalid value is reported, replaced by the default, and remembered as invalid."""
        document = Document("f", "a = 1\nb = 0\n")
        table = Table(document, (), {"a": 1, "b": 0})
        read = [table.get(key, integer(1), 7) for key in ("a", "b", "c")]
        self.assertEqual(read, [1, 7, 7])
        self.assertEqual(table.invalid_keys, {"b"})
        self.assertEqual(
            document.problems,
            ["f:2: b: invalid number 0: expected a whole number from 1 to 1000000000"],
        )
        self.assertTrue(document.has_error(("b",)))
        self.assertFalse(document.has_error(("a",)))

    def test_descend_counts_tables(self) -> None:
        """The numbers of a path count the tables of an array, without its other values."""
        document = Document("f", "")
        root = Table(document, (), {"a": [1, {"b": {"c": 1}}, {}]})
        self.assertEqual(root.descend(("a", 0)).path, ("a", 1))
        self.assertEqual(root.descend(("a", 1)).path, ("a", 2))
        self.assertEqual(root.descend(("a", 0, "b")).path, ("a", 1, "b"))
        self.assertEqual(root.descend(()).path, ())

    def test_escape_control(self) -> None:
        """Characters that are not printable are escaped, so a message is one line."""
        self.assertEqual(escape_control("a\n\x1b\u2028\u00e9 "), r"a\n\x1b\u2028" + "\u00e9 ")


class DocumentTests(SynchronousTestCase):
    """Locations in a document."""

    def test_location(self) -> None:
        """A path has the line of the key, or of the nearest table around it."""
        document = Document("f", "[a]\nb = 1\n")
        self.assertEqual(document.location(("a", "b")), "f:2")
        self.assertEqual(document.location(("a", "c")), "f:1")
        self.assertEqual(document.location(("d",)), "f")
        self.assertIn(("a", "b"), document)
        self.assertNotIn(("a", "c"), document)
