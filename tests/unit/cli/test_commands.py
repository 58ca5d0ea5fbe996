"""The requests and results of the operator commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.admin_address import AdminAddress
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.arguments import COMMANDS, parse_arguments
from balancebeam.cli.commands import CommandResult, Commands
from balancebeam.cli.errors import CommandError, ConnectionFailed, RequestRejected, UsageError
from tests.unit.cli.scripted_listener import server_info


class FakeAdminClient(AdminClient):
    """
    An `AdminClient` that returns prepared results instead of sending requests.

    Attributes:
        results: the data that are returned next, in order.
        requests: the method, path and, if any, content of each request.
    """

    def __init__(self, *results: Any) -> None:
        super().__init__(AdminAddress("fake"))
        self.results = list(results)
        self.requests: list[tuple[Any, ...]] = []

    def request(self, method: str, path: str, content: Any = None) -> Any:
        """Record the request and return the next result."""
        self.requests.append((method, path) if content is None else (method, path, content))
        return self.results.pop(0)


def draining(in_flight: int) -> dict[str, Any]:
    """A draining server with requests in flight."""
    return server_info(state="draining", in_flight=in_flight)


class CommandTestCase(SynchronousTestCase):
    """Runs commands with a `FakeAdminClient` and a clock that `sleep` advances."""

    def run_command(self, text: str, *results: Any) -> CommandResult:
        """Run a command, which has to send one request for each of `results`."""
        self.sleeps: list[float] = []
        self.client = FakeAdminClient(*results)
        commands = Commands(
            self.client, monotonic=lambda: sum(self.sleeps), sleep=self.sleeps.append
        )
        result = commands.run(parse_arguments(text.split(), {}))
        self.assertEqual(self.client.results, [])
        return result

    def run_failing(self, error_type: type[CommandError], text: str, *results: Any) -> str:
        """Run a command that fails with `error_type`, and return the message."""
        error: CommandError = self.assertRaises(error_type, self.run_command, text, *results)
        return error.text


class CommandTests(CommandTestCase):
    """Every command but for `--wait`."""

    def test_every_command_has_a_handler(self) -> None:
        """All commands of the command line can be run, and no others."""
        self.assertEqual(list(Commands(FakeAdminClient())._handlers), list(COMMANDS))

    def test_pool_of_the_server_is_found(self) -> None:
        """Without `--pool`, the pool is the one that has the server."""
        listed = [server_info(), server_info(pool="b", address="10.0.0.2:80")]
        drained = server_info(pool="b", address="10.0.0.2:80", state="draining", in_flight=2)
        result = self.run_command("drain http://10.0.0.2/", listed, drained)
        self.assertEqual(
            self.client.requests,
            [
                ("GET", "/upstreams"),
                ("PATCH", "/upstreams/b/10.0.0.2%3A80", {"state": "drain"}),
            ],
        )
        self.assertEqual(result.data, drained)
        self.assertEqual(result.text, "10.0.0.2:80: draining, weight 1, 2 in flight\n")

    def test_explicit_pool(self) -> None:
        """With `--pool`, servers are not listed first; names are percent-encoded."""
        self.run_command("weight unix:/a/b --pool x/y 7", server_info())
        self.assertEqual(
            self.client.requests,
            [("PATCH", "/upstreams/x%2Fy/unix%3A%2Fa%2Fb", {"weight": 7})],
        )

    def test_several_pools_or_none(self) -> None:
        """A server in several pools is a usage error, and one in no pool is rejected."""
        listed = [server_info(pool="b"), server_info(pool="a"), server_info(pool="a")]
        text = self.run_failing(UsageError, "ready 10.0.0.1:80", listed)
        self.assertEqual(text, "several pools have 10.0.0.1:80; give --pool a or b")
        text = self.run_failing(RequestRejected, "ready 10.0.0.9:80", listed)
        self.assertIn("no pool has a server 10.0.0.9:80", text)

    def test_maintenance_and_ready(self) -> None:
        """Both commands set the admin state."""
        self.run_command("maintenance 10.0.0.1:80 --pool app", server_info())
        self.assertEqual(self.client.requests[0][2], {"state": "maintenance"})
        self.run_command("ready 10.0.0.1:80 --pool app", server_info())
        self.assertEqual(self.client.requests[0][2], {"state": "ready"})

    def test_remove(self) -> None:
        """A server with requests in flight drains before it is removed."""
        result = self.run_command("remove 10.0.0.1:80 --pool app", server_info(in_flight=2))
        self.assertEqual(self.client.requests, [("DELETE", "/upstreams/app/10.0.0.1%3A80")])
        self.assertEqual(result.text, "10.0.0.1:80: draining before removal, 2 in flight\n")
        result = self.run_command("remove 10.0.0.1:80 --pool app", server_info())
        self.assertEqual(result.text, "10.0.0.1:80: removed\n")

    def test_status_of_one_pool(self) -> None:
        """With `--pool`, only the servers of that pool are requested."""
        self.run_command("status --pool a/b", [])
        self.assertEqual(self.client.requests, [("GET", "/upstreams/a%2Fb")])

    def test_register(self) -> None:
        """A server is registered in the first frontend's pool, or in that of `--pool`."""
        data = {"server": "http://10.0.0.1:80", "weight": 3}
        result = self.run_command("register http://10.0.0.1:80 --weight 3", data)
        self.assertEqual(
            self.client.requests,
            [("POST", "/register", {"address": "http://10.0.0.1:80", "weight": 3})],
        )
        self.assertEqual(result, CommandResult(data, "http://10.0.0.1:80: registered, weight 3\n"))
        self.run_command("register 10.0.0.1:80 --pool b", data)
        self.assertEqual(
            self.client.requests, [("POST", "/upstreams/b", {"address": "10.0.0.1:80"})]
        )

    def test_reload(self) -> None:
        """Every change is a line, with control characters escaped."""
        result = self.run_command("reload", {"changed": ["a is \x1b", "b is gone"]})
        self.assertEqual(result.text, "a is \\u001b\nb is gone\n")
        self.assertEqual(self.run_command("reload", {"changed": []}).text, "nothing has changed\n")

    def test_unexpected_data(self) -> None:
        """Data of an unexpected type is reported as a failed connection."""
        for text, data in (
            ("status", {}),
            ("status", [1]),
            ("status", None),
            ("drain a:1 --pool b", []),
            ("drain a:1 --pool b --wait", {"in_flight": "few"}),
            ("drain a:1 --pool b --wait", {}),
            ("remove a:1 --pool b", "gone"),
            ("register a:1", []),
            ("reload", {}),
            ("reload", {"changed": "all"}),
        ):
            message = self.run_failing(ConnectionFailed, text, data)
            self.assertIn("unexpected response", message, text)


class WaitTests(CommandTestCase):
    """`--wait`: the command returns when the server has nothing in flight."""

    DRAIN = "drain 10.0.0.1:80 --pool app --wait"
    REMOVE = "remove 10.0.0.1:80 --pool app --wait"

    def test_wait_until_drained(self) -> None:
        """The servers are listed every 0.25 s until nothing is in flight."""
        other = server_info(address="10.0.0.2:80", in_flight=9)
        result = self.run_command(
            self.DRAIN, draining(2), [draining(1), other], [draining(0), other]
        )
        self.assertEqual(self.sleeps, [0.25, 0.25])
        self.assertEqual(result.data["in_flight"], 0)

    def test_nothing_in_flight(self) -> None:
        """A server that has nothing in flight is not waited for."""
        self.run_command(self.DRAIN, draining(0))

    def test_server_disappears(self) -> None:
        """A server that was removed meanwhile has nothing in flight."""
        other = server_info(address="10.0.0.2:80", in_flight=9)
        self.run_command(self.DRAIN, draining(1), [other])

    def test_removed_server_registers_again(self) -> None:
        """Requests of a new server with the same address do not count."""
        new = server_info(in_flight=5)
        result = self.run_command(self.REMOVE, draining(2), [new, draining(1)], [new])
        self.assertEqual(result.text, "10.0.0.1:80: removed\n")

    def test_time_limit(self) -> None:
        """When the time limit expires, the message has what is still in flight."""
        text = self.run_failing(
            RequestRejected, f"{self.DRAIN} 0.4", draining(2), [draining(2)], [draining(1)]
        )
        self.assertEqual(text, "10.0.0.1:80 still has 1 in flight after 0.4 seconds")
        self.assertAlmostEqual(sum(self.sleeps), 0.4)

    def test_server_is_ready_again(self) -> None:
        """The command fails if the draining is ended meanwhile."""
        text = self.run_failing(
            RequestRejected, self.DRAIN, draining(2), [server_info(in_flight=3)]
        )
        self.assertEqual(text, "10.0.0.1:80 is up again, with 2 in flight")


class ExplainTests(CommandTestCase):
    """The command `explain`."""

    def test_query(self) -> None:
        """The request and the options are parameters of the query, percent-encoded."""
        data = {"frontend": "web", "route": "", "pool": "app", "answer": None}
        result = self.run_command(
            "explain GET http://h/a?b=1&c=+ --client ::1 --frontend web", data
        )
        query = "target=http%3A%2F%2Fh%2Fa%3Fb%3D1%26c%3D%2B&method=GET&client=%3A%3A1&frontend=web"
        self.assertEqual(self.client.requests, [("GET", f"/explain?{query}")])
        self.assertEqual(result.data, data)

    def test_text(self) -> None:
        """The text has the route, the limits, the servers and the answer."""
        limit = {"scope": "frontend web", "name": "client", "key": "192.0.2.7", "remaining": 0}
        dry_run = {**limit, "name": "dry", "refuses": False, "retry_after": 3}
        candidate = {"server": "10.0.0.1:80", "reason": "next turn", "state": "up", "weight": 2}
        data = {
            "frontend": "web",
            "route": "h /v1",
            "pool": "app",
            "limits": [{**limit, "refuses": True, "retry_after": 7}, dry_run],
            "candidates": [{**candidate, "in_flight": 4}, "garbage"],
            "answer": 429,
        }
        self.assertEqual(
            self.run_command("explain GET /v1", data).text,
            "frontend: web\n"
            "route:    h /v1\n"
            "pool:     app\n"
            "answer:   429, by the balancer\n"
            "\n"
            "LIMIT   SCOPE         KEY        REMAINING  VERDICT\n"
            "client  frontend web  192.0.2.7          0  refuses, retry after 7 s\n"
            "dry     frontend web  192.0.2.7          0  exceeded, dry run\n"
            "\n"
            "SERVER       STATE  WEIGHT  IN FLIGHT  REASON\n"
            "10.0.0.1:80  up          2          4  next turn\n",
        )

    def test_forwarded_by_the_default_route(self) -> None:
        """A forwarded request is answered by a server; control characters are escaped."""
        data = {"frontend": "w\x1b", "route": "", "pool": None, "answer": None}
        text = self.run_command("explain GET /", data).text
        self.assertIn("frontend: w\\u001b\n", text)
        self.assertIn("route:    default\npool:     -\nanswer:   of a server\n", text)

    def test_unexpected_response(self) -> None:
        """Data that are no object are not shown."""
        self.run_failing(ConnectionFailed, "explain GET /", [])


class RequestsTests(CommandTestCase):
    """`requests`: recent requests."""

    ROW: Mapping[str, Any] = {
        "id": "ab12",
        "time": "2026-01-01T00:00:00.000Z",
        "client": "192.0.2.1",
        "method": "GET",
        "host": "example.org",
        "target": "/\x1b[2J",
        "status": 502,
        "phases": {"queue": 0.5, "connect": None, "first_byte": None, "body": None},
        "tries": [{"server": "10.0.0.1:80", "reason": "r", "result": "failed", "seconds": 0.25}],
        "ended": "server",
    }

    def test_queries(self) -> None:
        """The options select requests."""
        for text, query in (
            ("requests", ""),
            ("requests --slow", "?slow=1"),
            ("requests --failed --limit 5", "?failed=1&limit=5"),
            ("requests --id a&b", "?id=a%26b"),
        ):
            result = self.run_command(text, [])
            self.assertEqual(self.client.requests, [("GET", f"/requests{query}")])
            self.assertEqual((result.data, result.text), ([], "there are no such requests\n"))

    def test_table(self) -> None:
        """Each request is a row, with control characters escaped."""
        result = self.run_command("requests", [self.ROW, {}])
        lines = result.text.splitlines()
        self.assertEqual(len(lines), 3)
        for text in (
            "ab12",
            "GET example.org /\\u001b[2J",
            "502",
            "0.750000",
            "10.0.0.1:80: failed",
        ):
            self.assertIn(text, lines[1])

    def test_details(self) -> None:
        """With an id, all values of the request are shown."""
        text = self.run_command("requests --id ab12", [self.ROW]).text
        self.assertIn("queue seconds: 0.500000\n", text)
        self.assertIn("try: 10.0.0.1:80 (r): failed, 0.250000 s\n", text)
        self.assertIn("target: /\\u001b[2J\n", text)

    def test_unexpected_data(self) -> None:
        """Data of another kind is an error."""
        unexpected: tuple[Any, ...] = ({}, [1], None)
        for data in unexpected:
            self.run_failing(ConnectionFailed, "requests", data)
