"""Keys of `[[frontend]]`, its timeouts and its routes."""

from __future__ import annotations

import sys

from tests.helpers.config import ConfigFileTestCase

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEEP_TIMEOUT = "[frontend.timeouts]\nidle" + ".a" * 4000 + "=1"


def parser_accepts(text: str) -> bool:
    """Whether the TOML parser accepts the depth of `text`; tomli 2.5 has a limit, and PyPy."""
    try:
        tomllib.loads(text)
    except RecursionError:
        return False
    return True


class FrontendTests(ConfigFileTestCase):
    """Invalid values, each reported with its line, its key and what is expected."""

    def test_values(self) -> None:
        """Invalid values of a frontend are reported."""
        self.assert_each_mistake(
            (
                ("[frontend]\nregistration = 'yes'\n", 2, ["frontend.registration", "true"]),
                ("[frontend]\nname = 'a b'\n", 2, ["frontend.name", "'a b'", "letters"]),
                ("[frontend]\nmode = 'udp'\n", 2, ["frontend.mode", "'udp'", "http, tcp"]),
                (
                    "[frontend]\nbind = [\n'a:1',\n'nowhere']\n",
                    4,
                    ["bind", "'nowhere'", "host:port"],
                ),
                ("[frontend]\nbind = []\n", 2, ["frontend.bind", "at least one address"]),
                (
                    "[frontend]\nbind = ['ssl:443']\n",
                    2,
                    ["frontend.bind", "expected one without TLS"],
                ),
                ("[frontend]\nallow = [\n'all']\n", 3, ["frontend.allow", "'all'", "CIDR"]),
                (
                    "[frontend]\naccess_log_format = 'x'\n",
                    2,
                    ["access_log_format", "combined, json"],
                ),
            )
        )

    def test_timeouts(self) -> None:
        """Invalid timeouts are reported, even if Python cannot show their value."""
        self.assert_each_mistake(
            (
                ("[frontend.timeouts]\nheader = 0\n", 2, ["timeouts.header", "more than 0"]),
                (
                    "[frontend.timeouts]\nidle = 0x" + "f" * 9000,
                    2,
                    ["timeouts.idle", "more than 0"],
                ),
                *[(DEEP_TIMEOUT, 2, ["idle", "more than 0"])] * parser_accepts(DEEP_TIMEOUT),
            )
        )

    def test_via(self) -> None:
        """Via is true, false or a name; anything else is reported."""
        for text, via in (
            ("true", True),
            ("false", False),
            ("'edge.example:80'", "edge.example:80"),
        ):
            settings = self.load(f"[frontend.forwarding]\nvia = {text}\n")
            self.assertEqual(settings.frontends[0].forwarding.via, via)
        self.assert_each_mistake(
            (
                f"[frontend.forwarding]\nvia = {text}\n",
                2,
                ["forwarding.via", "a name"],
            )
            for text in ("''", "'a b'", "1", "[]", '"a\\r\\nX: y"', "'\u00e4'")
        )

    def test_routes(self) -> None:
        """Routes without pool, host and path, and invalid hosts and paths are reported."""
        self.assert_each_mistake(
            (
                ("[frontend.route]\nhost = 'a'\n", 1, ["frontend.route", "missing pool"]),
                ("[frontend.route]\npool = 'app'\n", 1, ["route", "expected a host, a path"]),
                ("[frontend.route]\nhost='a b'\npool='app'\n", 2, ["route.host", "'a b'"]),
                ("[frontend.route]\npath='v1'\npool='app'\n", 2, ["route.path", "'v1'", "/v1"]),
            )
        )
