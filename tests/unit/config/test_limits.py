"""Keys of the tables `limit`."""

from __future__ import annotations

from balancebeam.config.toml_file import load_file
from tests.helpers.config import ConfigFileTestCase


class LimitTests(ConfigFileTestCase):
    """Rate limits of frontends, routes and pools."""

    def test_keys_of_other_algorithms_are_ignored(self) -> None:
        """`burst` and `per` are accepted for algorithms without them, as in the contract."""
        settings, problems = load_file(
            self.write(
                "[frontend.limit]\nrequests = 600\nper = 60\nburst = 50\n"
                "[[pool]]\nupstreams = ['a:1']\n[pool.limit]\n"
                "algorithm = 'concurrent'\nrequests = 3\nper = 60\nburst = 2\n"
            )
        )
        self.assertEqual(problems, [])
        self.assertEqual(settings.frontends[0].limits[0].algorithm, "sliding-window")
        self.assertEqual(settings.pools[0].limits[0].requests, 3)

    def test_mistakes(self) -> None:
        """Each mistake is reported with its line, its key and what is expected."""
        self.assert_each_mistake(
            (
                ("[frontend.limit]\nper = 1\n", 1, ["frontend.limit", "missing requests"]),
                ("[frontend.limit]\nrequests = 0\n", 2, ["limit.requests", "from 1"]),
                ("[frontend.limit]\nrequests = 1\nper = 0\n", 3, ["limit.per", "more than 0"]),
                (
                    "[frontend.limit]\nrequests = 1\nalgorithm = 'bucket'\nburst = 2\n",
                    3,
                    ["limit.algorithm", "'bucket'", "token-bucket"],
                ),
                (
                    "[frontend.limit]\nrequests = 1\nkey = 'ip'\n",
                    3,
                    ["limit.key", "'ip'", "client"],
                ),
                ("[frontend.limit]\nrequests = 1\nkey = []\n", 3, ["limit.key", "such as client"]),
                (
                    "[frontend.limit]\nrequests = 1\nkey = ['header:Via']\n",
                    3,
                    ["limit.key", "via"],
                ),
                (
                    "[frontend.limit]\nrequests = 1\nkey = 'cli\u00e9nt'\n",
                    3,
                    ["limit.key", "'cli\u00e9nt'"],
                ),
                (
                    "[frontend.limit]\nrequests = 1\nipv6_prefix = 0\n",
                    3,
                    ["ipv6_prefix", "1 to 128"],
                ),
                (
                    "[frontend.limit]\nrequests = 1\nstatus = 200\n",
                    3,
                    ["limit.status", "400 to 599"],
                ),
                (
                    "[frontend.limit]\nrequests = 1\nname = '\"'\n",
                    1,
                    ["frontend.limit", "name", "'\"'", "letters and digits"],
                ),
                ("[pool.limit]\nrequests = 1\nkey = 'x'\n", 3, ["pool.limit.key", "header:NAME"]),
            )
        )
