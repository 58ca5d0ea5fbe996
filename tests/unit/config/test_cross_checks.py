"""Rules that concern several settings: names, references, addresses, modes, servers, admin."""

from __future__ import annotations

import os

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.api import single_pool_settings
from balancebeam.config.cross_checks import check_admin, is_local, validate_settings
from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import AdminSettings, LimitSettings, RouteSettings, ServerSettings
from tests.helpers.config import ONE_POOL, TWO_FRONTENDS, ConfigFileTestCase


class FileConflictTests(ConfigFileTestCase):
    """Mistakes of a file, each with its line, its key and what is expected."""

    def test_references(self) -> None:
        """Frontends and routes refer to pools of the file, or else a pool is suggested."""
        self.assert_each_mistake(
            (
                ("[frontend]\npool = 'ap'\n" + ONE_POOL, 2, ["frontend.pool", "'ap'", "mean app?"]),
                ("[frontend]\n\npool = 'web'\n", 3, ["frontend.pool", "'web'", "expected app"]),
                (
                    "[[frontend.route]]\nhost='a'\npool='apt'\n" + ONE_POOL,
                    3,
                    ["'apt'", "mean app?"],
                ),
                (
                    "[frontend.route]\nhost='a'\npool='apt'\n" + ONE_POOL,
                    3,
                    ["'apt'", "mean app?"],
                ),
                (
                    TWO_FRONTENDS.replace('"other"\n[', '"othr"\n['),
                    8,
                    ["pool", "'othr'", "mean other?"],
                ),
            )
        )

    def test_names(self) -> None:
        """Every pool but the first has a name, and names are unique."""
        self.assert_each_mistake(
            (
                (
                    TWO_FRONTENDS.replace('"two"', '"one"'),
                    6,
                    ["frontend.name", "duplicate name 'one'"],
                ),
                (
                    TWO_FRONTENDS.replace('name = "other"', "").replace('"other"', '"app"'),
                    12,
                    ["pool.name", "missing name"],
                ),
                (
                    TWO_FRONTENDS + '[[pool]]\nname = "app"\n',
                    17,
                    ["pool.name", "duplicate name 'app'"],
                ),
                ("[[frontend]]\n[[frontend]]\nbind='a:1'\n", 2, ["duplicate name 'web'"]),
            )
        )

    def test_addresses(self) -> None:
        """No two listeners have the same address."""
        self.assert_each_mistake(
            (
                (
                    TWO_FRONTENDS.replace("0.1:2", "0.1:1"),
                    7,
                    ["frontend.bind", "duplicate address 127.0.0.1:1"],
                ),
                ("[frontend]\nbind = ['a:1', 'a:1']\n", 2, ["frontend.bind", "duplicate"]),
                (
                    TWO_FRONTENDS + '[admin]\nbind = "127.0.0.1:2"\n',
                    17,
                    ["admin.bind", "127.0.0.1:2", "no frontend uses"],
                ),
                (
                    '[frontend]\nbind=["unix:/a\\n", "unix:/a\\n"]\n',
                    2,
                    ["duplicate address unix:/a\\n"],
                ),
            )
        )

    def test_routes(self) -> None:
        """A route with the host and path of an earlier route is reported."""
        self.assert_each_mistake(
            (
                (
                    "[[frontend.route]]\nhost='a'\npool='app'\n"
                    "[[frontend.route]]\nhost='a'\npool='app'\n",
                    4,
                    ["frontend.route", "duplicate route"],
                ),
            )
        )

    def test_pools_of_both_modes(self) -> None:
        """A pool is used in one mode only."""
        self.assert_each_mistake(
            (
                (
                    TWO_FRONTENDS.replace('"two"', '"two"\nmode = "tcp"').replace(
                        '"other"', '"app"', 1
                    ),
                    9,
                    ["frontend.pool", "'app'", '"http" and "tcp"'],
                ),
                (
                    TWO_FRONTENDS.replace(
                        '"two"', '"two"\nmode = "tcp"\nroute = {host="a", pool="app"}'
                    ),
                    8,
                    ["frontend.route.pool", "'app'", '"http" and "tcp"'],
                ),
            )
        )

    def test_keys_of_the_other_mode(self) -> None:
        """Keys that the mode does not have are reported, also with their default value."""
        self.assert_each_mistake(
            (
                ("[frontend]\nmode='tcp'\nmax_body=5\n", 3, ["frontend.max_body", "http"]),
                (
                    "[frontend]\nmode='tcp'\nregistration=true\n",
                    3,
                    ["frontend.registration", "http"],
                ),
                ("[frontend]\nmode='tcp'\n[frontend.forwarding]\n", 3, ["forwarding", "http"]),
                (
                    "[frontend]\nmode='tcp'\nregistration_from=[]\n",
                    3,
                    ["registration_from", "http"],
                ),
                (
                    "[frontend]\nlog_connections=true\n",
                    2,
                    ["log_connections", "tcp", "access_log"],
                ),
                (
                    "[frontend]\nmode='tcp'\n[frontend.route]\nhost='a'\npath='/'\npool='app'\n",
                    5,
                    ["frontend.route.path", "http"],
                ),
            )
        )

    def test_limits_and_checks_in_tcp_mode(self) -> None:
        """In TCP mode limits have the key "client", and health checks have no path."""
        self.assert_each_mistake(
            (
                (
                    "[frontend]\nmode='tcp'\n[[frontend.limit]]\nrequests=1\n"
                    "[[frontend.limit]]\nrequests=1\nkey='host'\n",
                    7,
                    ["frontend.limit.key", "host", '"client"'],
                ),
                (
                    "[frontend]\nmode='tcp'\n[frontend.route]\nhost='a'\npool='app'\n"
                    "[frontend.route.limit]\nrequests=1\nkey=[\n'client',\n'header:a']\n",
                    8,
                    ["frontend.route.limit.key", "header:a", '"client"'],
                ),
                (
                    "[frontend]\nmode='tcp'\n[pool]\nlimit = {requests=1, key='host'}\n",
                    4,
                    ["pool.limit.key", "host", '"client"'],
                ),
                (
                    "[frontend]\nmode='tcp'\n[pool.health]\npath='/'\n",
                    4,
                    ["pool.health.path", "tcp"],
                ),
            )
        )

    def test_lines_of_later_tables(self) -> None:
        """Mistakes in earlier tables do not shift the lines of later ones."""
        problems = self.problems(
            "[frontend]\nmode='tcp'\n[[frontend.limit]]\nrequests=1\nkey='nonsense'\n"
            "[[frontend.limit]]\nrequests=1\nname='\"'\n[[frontend.limit]]\nrequests=1\nkey='host'\n"
        )
        lines = [problem.partition(":")[0] for problem in problems]
        self.assertEqual(lines, ["5", "6", "11"], problems)
        problems = self.problems("pool = [1, {}, {upstreams=['a']}]\nfrontend = [2, {pool='b'}]\n")
        self.assertEqual(len(problems), 5, problems)


class ServerTests(ConfigFileTestCase):
    """Pools without servers, which only registration or the admin API can fill."""

    def test_pools_without_servers(self) -> None:
        """Each pool without a server is reported with its line, unless it has demo servers."""
        for text, line, parts in (
            (ONE_POOL + "[[pool]]\nname='b'\n", 3, ["pool b", "no upstreams"]),
            ("[[pool]]\n", 1, ["pool app", "no upstreams"]),
            ("demo=1\n[frontend]\n" + ONE_POOL + "[[pool]]\nname='b'\n", 5, ["pool b"]),
        ):
            with self.subTest(text):
                (problem,) = self.option_problems(text)
                self.assertEqual(problem.partition(":")[0], str(line), problem)
                for part in parts:
                    self.assertIn(part, problem)

    def test_no_servers_at_all(self) -> None:
        """Without any server, the message names the options that add servers."""
        (problem,) = self.option_problems("")
        self.assertIn("--upstream", problem)

    def test_servers_can_be_registered_later(self) -> None:
        """With an admin listener or registration, no server is required."""
        self.parse("[admin]\n")
        self.parse("[frontend]\nregistration = true\n")


class AdminTests(ConfigFileTestCase):
    """The address and the token of the admin listener."""

    def test_token_is_required_unless_the_address_is_local(self) -> None:
        """An admin listener that other hosts can connect to needs a token."""
        (problem,) = self.option_problems("[admin]\n\nbind='0.0.0.0:1'\n" + ONE_POOL)
        self.assertEqual(problem.partition(":")[0], "3", problem)
        self.assertIn("admin.bind", problem)
        self.assertIn("needs a token", problem)
        for local in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/x"):
            self.parse(f"[admin]\nbind='{local}'\n")

    def test_proxy_protocol_is_rejected(self) -> None:
        """The admin listener does not accept the PROXY protocol."""
        address = ProxyProtocolAddress(TcpAddress("127.0.0.1", 1))
        problem = check_admin(AdminSettings(address))
        assert problem is not None
        self.assertEqual(problem[0], "bind")

    def test_is_local(self) -> None:
        """Loopback addresses and Unix sockets are local; endpoints may be anything."""
        cases: tuple[tuple[ListenAddress, bool], ...] = (
            (UnixAddress("/x"), True),
            (TcpAddress("localhost", 1), True),
            (TcpAddress("127.3.3.3", 1), True),
            (TcpAddress("::1", 1), True),
            (TcpAddress("0.0.0.0", 1), False),
            (TcpAddress("lb.example", 1), False),
            (EndpointAddress("tcp:1:interface=127.0.0.1"), False),
            (ProxyProtocolAddress(TcpAddress("127.0.0.1", 1)), False),
        )
        for address, local in cases:
            self.assertEqual(is_local(address), local, address)


class ValidateSettingsTests(SynchronousTestCase):
    """Conflicts of settings that are from no file."""

    def test_conflicts_are_described_by_name(self) -> None:
        """Without a file, messages name the frontend or the pool instead of a line."""
        settings = single_pool_settings(
            (ServerSettings(TcpAddress("a", 1)),),
            (TcpAddress("b", 1),),
            mode="tcp",
            max_body=1,
            limits=(LimitSettings(1, key=("host",)),),
        )
        (frontend,) = settings.frontends
        frontend = evolve(frontend, routes=(RouteSettings("app", "a", "/"),))
        settings = evolve(settings, frontends=(frontend,), admin=AdminSettings(TcpAddress("b", 1)))
        problems = validate_settings(settings)
        self.assertEqual(
            [problem.rpartition(": ")[0].rpartition(": ")[0] for problem in problems],
            [
                "admin.bind",
                "frontend web: max_body",
                "frontend web: limit.key",
                "frontend web: route.path",
            ],
        )

    def test_state_file(self) -> None:
        """A state file that cannot be written is reported."""
        settings = single_pool_settings((ServerSettings(TcpAddress("a", 1)),))
        folder = os.path.dirname(os.path.abspath(__file__))
        for path, part in (
            (folder, "not a directory"),
            ("/nonexistent/state", "missing directory /nonexistent"),
        ):
            (problem,) = validate_settings(evolve(settings, state=path))
            self.assertTrue(problem.startswith("state: "), problem)
            self.assertIn(part, problem)
