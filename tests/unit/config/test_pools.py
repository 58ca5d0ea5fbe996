"""Keys of `[[pool]]`, its servers and its tables."""

from __future__ import annotations

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.settings import ServerSettings
from tests.helpers.config import ConfigFileTestCase


class PoolTests(ConfigFileTestCase):
    """Servers and algorithms, and mistakes with line, key and what is expected."""

    def test_algorithm_names(self) -> None:
        """Algorithms have long names and abbreviations, in either case."""
        for text, name in (("RR", "round-robin"), ("p2c", "power-of-two"), ("Random", "random")):
            self.assertEqual(self.load(f'[pool]\nalgorithm = "{text}"\n').pools[0].algorithm, name)

    def test_servers(self) -> None:
        """A server is a string with options, or a table."""
        text = (
            "[pool]\nupstreams = ['a:1,weight=2,backup', "
            "{address = 'unix:/b', max_in_flight = 3, proxy = 'v2'}]\n"
        )
        self.assertEqual(
            self.load(text).pools[0].servers,
            (
                ServerSettings(TcpAddress("a", 1), 2, True),
                ServerSettings(UnixAddress("/b"), max_in_flight=3, proxy_protocol=2),
            ),
        )

    def test_invalid_servers(self) -> None:
        """Invalid and duplicate servers are reported."""
        self.assert_each_mistake(
            (
                ("[pool]\nupstreams = [\n'a'\n]\n", 3, ["pool.upstreams", "'a'", "host:port"]),
                ("[pool]\nupstreams = [1]\n", 2, ["pool.upstreams", "quotes"]),
                ("[pool]\nupstreams = [{weight = 1}]\n", 2, ["upstreams", "missing address"]),
                ("[pool]\nupstreams = [{address='a'}]\n", 2, ["address", "host:port"]),
                ("[pool]\nupstreams = [{address='a:1', weight=257}]\n", 2, ["weight", "0 to 256"]),
                ("[pool]\nupstreams = [{address='a:1', proxy=2}]\n", 2, ["proxy", "v1, v2"]),
                ("[pool]\nupstreams = ['a:1,weight=-1']\n", 2, ["upstreams", "0 to 256"]),
                (
                    "[pool]\nupstreams = ['a:1',\n{address='a:1'}]\n",
                    3,
                    ["duplicate address a:1"],
                ),
                ("[pool]\nupstreams = [\n'tls://a']\n", 3, ["tls://host:port"]),
                (
                    "[pool]\nupstreams = ['a:443',\n{address='https://a'}]\n",
                    3,
                    ["duplicate address a:443"],
                ),
            )
        )

    def test_servers_with_invalid_addresses_are_no_duplicates(self) -> None:
        """Each invalid address is reported once, and its other keys are still checked."""
        problems = self.problems(
            "[pool]\nupstreams = [\n{address='a', weight=-1},\n{address='a'},\n'localhost:1']\n"
        )
        lines = [problem.partition(":")[0] for problem in problems]
        self.assertEqual(lines, ["3", "3", "4"], problems)

    def test_values(self) -> None:
        """Invalid values of a pool and its tables are reported."""
        self.assert_each_mistake(
            (
                ("[pool]\nalgorithm = 'best'\n", 2, ["pool.algorithm", "'best'", "round-robin"]),
                ("[pool.passive]\nbad_answers = 0\n", 2, ["pool.passive.bad_answers", "1 to"]),
                (
                    "[pool.retries]\non = ['cuts']\n",
                    2,
                    ["pool.retries.on", "connect, cut"],
                ),
                ("[pool.retries]\nbudget = 2\n", 2, ["pool.retries.budget", "0 to 1"]),
                ("[pool.health]\npath = 'health'\n", 2, ["pool.health.path", "/health"]),
            )
        )
