"""The operator's commands: what is typed, what is asked, and what is shown."""

from __future__ import annotations

import json
import math
import os
import pty
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.cli.admin_address import load_token, normalize_address, parse_admin_address
from balancebeam.cli.admin_client import AdminClient
from balancebeam.cli.arguments import is_command, parse_arguments
from balancebeam.cli.commands import CommandResult, Commands
from balancebeam.cli.deadline_socket import MAX_RESPONSE_BYTES
from balancebeam.cli.errors import CommandError, ConnectionFailed, RequestRejected, UsageError
from balancebeam.cli.run import run
from balancebeam.cli.status import format_age, status_table
from balancebeam.cli.terminal import Column, Terminal, escape, table, width, wrap
from tests.helpers.processes import TIMEOUT, ScriptedServer, free_port, read_head


def server_of(**changes: Any) -> dict[str, Any]:
    """A server as `GET /upstreams` tells of it."""
    return {
        "pool": "app",
        "address": "10.0.0.1:80",
        "weight": 1,
        "state": "up",
        "reason": "",
        "since": None,
        "in_flight": 0,
        "requests": 12,
        "failures": 0,
        **changes,
    }


class ArgumentTests(SynchronousTestCase):
    """What is typed."""

    def read(self, *arguments: str, **environment: str) -> Namespace:
        return parse_arguments(arguments, environment)

    def test_commands_are_told_from_options_of_the_balancer(self) -> None:
        for text in (
            "status",
            "drain 10.0.0.1:80",
            "--admin 127.0.0.1:1 status",
            "--admin=127.0.0.1:1 --json --timeout 3 --token-file f reload",
        ):
            self.assertTrue(is_command(text.split()), text)
        for text in (
            "",
            "--demo 3",
            "--admin 127.0.0.1:1",
            "--admin status",
            "--admin",
            "--help",
            "--upstream status",
            "-c reload",
            "stat",
        ):
            self.assertFalse(is_command(text.split()), text)

    def test_common_options_stand_before_or_behind(self) -> None:
        for text in (
            "--admin [::1]:1 --json --timeout 2.5 --token-file f drain 10.0.0.1:80",
            "drain --json --timeout=2.5 10.0.0.1:80 --admin [::1]:1 --token-file=f",
            "--json --admin 1.1.1.1:1 drain 10.0.0.1:80 --admin [::1]:1 --token-file f "
            "--timeout 2.5",
        ):
            found = self.read(*text.split())
            self.assertEqual(found.command, "drain")
            self.assertEqual(found.address, "10.0.0.1:80")
            self.assertEqual(found.admin, "[::1]:1")
            self.assertEqual(found.timeout, 2.5)
            self.assertEqual(found.token_file, "f")
            self.assertTrue(found.json)

    def test_defaults(self) -> None:
        found = self.read("status")
        self.assertEqual(found.admin, "127.0.0.1:1101")
        self.assertEqual(found.timeout, 10)
        self.assertEqual((found.token_file, found.json, found.pool), (None, False, None))
        self.assertEqual(self.read("status", BALANCEBEAM_ADMIN="unix:/a").admin, "unix:/a")
        self.assertEqual(self.read("status", BALANCEBEAM_ADMIN="").admin, "127.0.0.1:1101")
        both = self.read("status", "--admin", "b:1", BALANCEBEAM_ADMIN="unix:/a")
        self.assertEqual(both.admin, "b:1")

    def test_waiting_takes_seconds_or_none(self) -> None:
        for text, seconds in (
            ("drain 10.0.0.1:80", None),
            ("drain 10.0.0.1:80 --wait", math.inf),
            ("drain --wait 10.0.0.1:80", math.inf),
            ("drain --wait --pool a 10.0.0.1:80", math.inf),
            ("drain --wait 5 10.0.0.1:80", 5),
            ("drain 10.0.0.1:80 --wait=.5", 0.5),
            ("remove 10.0.0.1:80 --wait 2", 2),
        ):
            self.assertEqual(self.read(*text.split()).wait, seconds, text)
        self.assertIsNone(self.read("weight", "10.0.0.1:80", "3").wait)

    def test_wrong_usage(self) -> None:
        self.patch(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115
        self.addCleanup(sys.stderr.close)
        for text in (
            "drain",
            "weight 10.0.0.1:80",
            "weight 10.0.0.1:80 -1",
            "weight 10.0.0.1:80 1_0",
            "weight 10.0.0.1:80 \u0663",
            "status extra",
            "status --token secret",
            "status --timeout 0",
            "status --timeout inf",
            "status --timeout nan",
            "status --timeout 1e3",
            "drain 10.0.0.1:80 --wait=-1",
            "ready 10.0.0.1:80 --wait",
            "reload --pool a",
        ):
            with self.assertRaises(SystemExit) as caught:
                self.read(*text.split())
            self.assertEqual(caught.exception.code, 2, text)

    def test_places(self) -> None:
        for text, host, port, path, field in (
            ("127.0.0.1:1101", "127.0.0.1", 1101, "", "127.0.0.1:1101"),
            ("lb.example:1", "lb.example", 1, "", "lb.example:1"),
            ("[::1]:65535", "::1", 65535, "", "[::1]:65535"),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, "", "[fe80::1]:1"),
            ("http://127.0.0.1:1101/", "127.0.0.1", 1101, "", "127.0.0.1:1101"),
            ("http://localhost", "localhost", 80, "", "localhost:80"),
            ("http://[::1]", "::1", 80, "", "[::1]:80"),
            ("unix:/run/a b", "", 0, "/run/a b", "localhost"),
        ):
            place = parse_admin_address(text)
            self.assertEqual((place.host, place.port, place.path), (host, port, path), text)
            self.assertEqual(place.host_header, field)
        for text in (
            *("", "localhost", "1101", "a:0", "a:65536", "a:1/b", "unix:a", "ftp://a:1"),
            *("https://a:1", "a b:1", "a\r\nX: y:1", "http://a:1/path", "user@a:1", "\u00e4:1"),
        ):
            error = self.assertRaises(UsageError, parse_admin_address, text)
            self.assertIn("--admin", error.text)

    def test_addresses_of_servers(self) -> None:
        for text, known in (
            ("http://10.0.0.1:80/", "10.0.0.1:80"),
            ("http://10.0.0.1", "10.0.0.1:80"),
            ("http://[::1]", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("unix:/a", "unix:/a"),
            ("http://10.0.0.1:80/path", "http://10.0.0.1:80/path"),
        ):
            self.assertEqual(normalize_address(text), known)


class TerminalTests(SynchronousTestCase):
    """What is shown."""

    def test_columns_are_aligned(self) -> None:
        servers = [
            server_of(in_flight=3, requests=123456789),
            server_of(pool="images", address="[2001:db8::1]:8080", state="down", reason="refused"),
        ]
        lines = status_table(servers, 0, Terminal()).splitlines()
        for line, left, right in zip(
            lines,
            (
                "POOL    SERVER            ",
                "app     10.0.0.1:80       ",
                "images  [2001:db8::1]:8080",
            ),
            (
                "STATE  WEIGHT  IN FLIGHT   REQUESTS  FAILURES  SINCE  REASON",
                "up          1          3  123456789         0  -",
                "down        1          0         12         0  -      refused",
            ),
        ):
            self.assertEqual(line, f"{left}  {right}")

    def test_backup_servers_are_marked(self) -> None:
        """The table marks backup servers behind their addresses."""
        lines = status_table([server_of(backup=True), server_of()], 0, Terminal()).splitlines()
        self.assertIn(" 10.0.0.1:80 (backup)  up ", lines[1])
        self.assertNotIn("backup", lines[2])

    def test_no_servers(self) -> None:
        self.assertEqual(status_table([], 0, Terminal()), "there are no servers\n")

    def test_what_is_not_told_is_no_mistake(self) -> None:
        text = status_table([{"address": "a:1", "later": 1}], 0, Terminal())
        self.assertIn("-     a:1", text)

    def test_wide_and_combining_letters(self) -> None:
        rows = [["池", "a"], ["e\u0301te", "b"], ["plain", "c"]]
        shown = table((Column("X"), Column("Y")), rows)
        self.assertEqual(shown, "X      Y\n池     a\ne\u0301te    b\nplain  c\n")
        self.assertEqual({width(line[:-1]) for line in shown.splitlines()}, {7})

    def test_without_room_the_reason_stands_below(self) -> None:
        reason = "the last 3 checks failed: connection was refused by the other side"
        lines = status_table(
            [server_of(state="down", reason=reason), server_of(address="10.0.0.2:80")],
            0,
            Terminal(80),
        ).splitlines()
        self.assertEqual(len(lines), 4)
        self.assertNotIn("REASON", lines[0])
        self.assertEqual(lines[2], f"    {reason}")
        self.assertTrue(lines[3].startswith("app   10.0.0.2:80"))
        # And where it fits, it does not.
        escape_control = status_table([server_of(state="down", reason=reason)], 0, Terminal(160))
        self.assertEqual(len(escape_control.splitlines()), 2)

    def test_long_texts_are_folded_and_nothing_is_lost(self) -> None:
        path = "unix:/" + "abcdefghi/" * 10
        reason = "x" * 200
        lines = status_table([server_of(address=path, reason=reason)], 0, Terminal(80)).splitlines()
        self.assertLessEqual(max(map(width, lines)), 80)
        self.assertIn(path, "".join(line[6:].split(" ")[0] for line in lines[1:-3]))
        self.assertIn(reason, "".join(line.strip() for line in lines))
        # Of a terminal that is too small for anything, the best is made.
        tiny = status_table([server_of(address=path, reason=reason)], 0, Terminal(1))
        self.assertIn("x" * 16, tiny)

    def test_folding(self) -> None:
        for text, most, pieces in (
            ("", 5, [""]),
            ("abc", 3, ["abc"]),
            ("abcdef", 3, ["abc", "def"]),
            ("ab cd ef", 5, ["ab cd", "ef"]),
            ("ab cdefgh", 5, ["ab", "cdefg", "h"]),
            ("abcde fg", 5, ["abcde", "fg"]),
            ("池池池", 3, ["池", "池", "池"]),
            ("池", 1, ["池"]),
        ):
            self.assertEqual(wrap(text, most), pieces, text)

    def test_colors_only_where_there_are_some(self) -> None:
        servers = [server_of(), server_of(state="down"), server_of(state="sideways")]
        colored = status_table(servers, 0, Terminal(colors=True))
        self.assertIn("\x1b[32mup\x1b[0m  ", colored)
        self.assertIn("\x1b[31mdown\x1b[0m  ", colored)
        plain = status_table(servers, 0, Terminal())
        self.assertNotIn("\x1b", plain)
        stripped = colored.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "")
        self.assertEqual(stripped, plain)

    def test_nothing_obeys_the_server(self) -> None:
        evil = "a\x1b[2J\r\n\t\x9b\x7f\u202e\udcff\U000e0001"
        safe = "a\\u001b[2J\\u000d\\u000a\\u0009\\u009b\\u007f\\u202e\\udcff\\U000e0001"
        self.assertEqual(escape(evil), safe)
        self.assertEqual(escape("a\nb\tc\r", allow="\n\t"), "a\nb\tc\\u000d")
        fields = dict.fromkeys(("pool", "address", "state", "reason", "weight", "since"), evil)
        shown = status_table([fields], 0, Terminal())
        self.assertEqual(shown.count(safe), 6)
        self.assertEqual(len(shown.splitlines()), 2)

    def test_ages(self) -> None:
        for since, text in (
            ("1970-01-01T00:16:40.000Z", "now"),
            ("1970-01-01T00:16:39.000Z", "1s ago"),
            ("1970-01-01T00:15:41.001Z", "58s ago"),
            ("1970-01-01T00:15:40.000Z", "1m ago"),
            ("1969-12-31T23:16:40.000Z", "1h ago"),
            ("1969-12-25T23:16:40.000Z", "6d ago"),
            ("1970-01-01T01:00:00.000Z", "now"),
            ("0001-01-01T00:00:00.000Z", "719162d ago"),
            ("yesterday", "yesterday"),
            (None, "-"),
            (5, "-"),
        ):
            self.assertEqual(format_age(since, 1000), text)


class FakeAdminClient:
    """An `AdminClient` that answers what it is told to, and knows what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, ...]] = []

    def request(self, method: str, path: str, content: Any = None) -> Any:
        self.asked.append((method, path) if content is None else (method, path, content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class CommandTests(SynchronousTestCase):
    """What is asked for, and what is made of the answer."""

    def do(self, text: str, *answers: Any) -> CommandResult:
        self.slept: list[float] = []
        self.connection = FakeAdminClient(*answers)
        connection: Any = self.connection
        commands = Commands(connection, monotonic=lambda: sum(self.slept), sleep=self.slept.append)
        done = commands.run(parse_arguments(text.split(), {}))
        self.assertEqual(self.connection.answers, [])
        return done

    def refused(self, kind: type[CommandError], text: str, *answers: Any) -> str:
        error: CommandError = self.assertRaises(kind, self.do, text, *answers)
        return error.text

    def test_the_pool_is_found(self) -> None:
        listed = [server_of(), server_of(pool="b", address="10.0.0.2:80")]
        drained = server_of(pool="b", address="10.0.0.2:80", state="draining", in_flight=2)
        done = self.do("drain http://10.0.0.2/", listed, drained)
        self.assertEqual(
            self.connection.asked,
            [
                ("GET", "/upstreams"),
                ("PATCH", "/upstreams/b/10.0.0.2%3A80", {"state": "drain"}),
            ],
        )
        self.assertEqual(done.data, drained)
        self.assertEqual(done.text, "10.0.0.2:80: draining, weight 1, 2 in flight\n")

    def test_a_pool_that_is_given_is_not_looked_for(self) -> None:
        self.do("weight unix:/a/b --pool x/y 7", server_of())
        self.assertEqual(
            self.connection.asked,
            [("PATCH", "/upstreams/x%2Fy/unix%3A%2Fa%2Fb", {"weight": 7})],
        )

    def test_several_pools_or_none(self) -> None:
        listed = [server_of(pool="b"), server_of(pool="a"), server_of(pool="a")]
        text = self.refused(UsageError, "ready 10.0.0.1:80", listed)
        self.assertEqual(text, "several pools have 10.0.0.1:80; give --pool a or b")
        text = self.refused(RequestRejected, "ready 10.0.0.9:80", listed)
        self.assertIn("no pool has a server 10.0.0.9:80", text)

    def test_the_others(self) -> None:
        self.do("maintenance 10.0.0.1:80 --pool app", server_of())
        self.assertEqual(self.connection.asked[0][2], {"state": "maintenance"})
        self.do("ready 10.0.0.1:80 --pool app", server_of())
        self.assertEqual(self.connection.asked[0][2], {"state": "ready"})
        done = self.do("remove 10.0.0.1:80 --pool app", server_of(in_flight=2))
        self.assertEqual(self.connection.asked, [("DELETE", "/upstreams/app/10.0.0.1%3A80")])
        self.assertEqual(done.text, "10.0.0.1:80: removed, when 2 in flight are done\n")
        done = self.do("remove 10.0.0.1:80 --pool app", server_of())
        self.assertEqual(done.text, "10.0.0.1:80: removed\n")
        self.do("status --pool a/b", [])
        self.assertEqual(self.connection.asked, [("GET", "/upstreams/a%2Fb")])

    def test_registering(self) -> None:
        answer = {"server": "http://10.0.0.1:80", "weight": 3}
        done = self.do("register http://10.0.0.1:80 --weight 3", answer)
        self.assertEqual(
            self.connection.asked,
            [("POST", "/register", {"address": "http://10.0.0.1:80", "weight": 3})],
        )
        self.assertEqual(done, CommandResult(answer, "http://10.0.0.1:80: registered, weight 3\n"))
        self.do("register 10.0.0.1:80 --pool b", answer)
        self.assertEqual(
            self.connection.asked, [("POST", "/upstreams/b", {"address": "10.0.0.1:80"})]
        )

    def test_reloading(self) -> None:
        done = self.do("reload", {"changed": ["a is \x1b", "b is gone"]})
        self.assertEqual(done.text, "a is \\u001b\nb is gone\n")
        self.assertEqual(self.do("reload", {"changed": []}).text, "nothing has changed\n")

    def test_waiting(self) -> None:
        def busy(number: int, **changes: Any) -> dict[str, Any]:
            return server_of(**{"state": "draining", "in_flight": number, **changes})

        other = server_of(address="10.0.0.2:80", in_flight=9)
        drain = "drain 10.0.0.1:80 --pool app --wait"
        done = self.do(drain, busy(2), [busy(1), other], [busy(0), other])
        self.assertEqual(self.slept, [0.25, 0.25])
        self.assertEqual(done.data["in_flight"], 0)
        # Nothing is in flight at once; it was removed meanwhile.
        self.do(drain, busy(0))
        self.do(drain, busy(1), [other])
        # One that has registered again is none of its business.
        remove = "remove 10.0.0.1:80 --pool app --wait"
        done = self.do(remove, busy(2), [server_of(in_flight=5), busy(1)], [server_of(in_flight=5)])
        self.assertEqual(done.text, "10.0.0.1:80: removed\n")
        # It does not come about.
        text = self.refused(RequestRejected, f"{drain} 0.4", busy(2), [busy(2)], [busy(1)])
        self.assertEqual(text, "10.0.0.1:80 still has 1 in flight after 0.4 seconds")
        self.assertAlmostEqual(sum(self.slept), 0.4)
        text = self.refused(RequestRejected, drain, busy(2), [server_of(in_flight=3)])
        self.assertEqual(text, "10.0.0.1:80 is up again, with 2 in flight")

    def test_answers_that_make_no_sense(self) -> None:
        for text, answer in (
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
            self.assertIn("not understood", self.refused(ConnectionFailed, text, answer), text)


# With files and over sockets.


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BALANCEBEAM_ADMIN", "BALANCEBEAM_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def response(
    body: bytes, status: str = "200 OK", kind: str = "application/json", more: bytes = b""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"\r\n" + body


def success(data: Any) -> bytes:
    return response(json.dumps({"status": "success", "data": data}).encode())


def failure(text: str, status: str) -> bytes:
    return response(json.dumps({"status": "error", "data": text}).encode(), status)


def saying(*answers: bytes, heads: list[bytes] | None = None) -> ScriptedServer:
    """A server that says these, one a connection, and ends each then."""

    def serve(connection: Any, number: int) -> None:
        head, _ = read_head(connection)
        if heads is not None:
            heads.append(head)
        connection.sendall(answers[min(number, len(answers)) - 1])

    return ScriptedServer(serve)


Capture = pytest.CaptureFixture[str]


def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  sesame\n")
    assert load_token(str(file), "other") == "sesame"
    assert load_token(None, " other\n") == "other"
    assert load_token(None, None) is None
    assert load_token(None, "") is None
    for content in (b"", b" \n", b"two words", b"a\r\nb", b"\xff", b"a" * 5000):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="holds no token"):
            load_token(str(file), None)
    with pytest.raises(UsageError, match="BALANCEBEAM_TOKEN holds no token"):
        load_token(None, "a b")
    with pytest.raises(UsageError, match="/nowhere: cannot be read: No such file"):
        load_token("/nowhere", None)


def test_what_is_sent(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []
    monkeypatch.setenv("BALANCEBEAM_TOKEN", "sesame")
    with saying(success([server_of()]), success(server_of(weight=5)), heads=said) as server:
        monkeypatch.setenv("BALANCEBEAM_ADMIN", server.address)
        assert run(["weight", "10.0.0.1:80", "5"]) == 0
    assert capsys.readouterr() == ("10.0.0.1:80: up, weight 5, 0 in flight\n", "")
    first, second = (head.decode().split("\r\n") for head in said)
    assert first[0] == "GET /upstreams HTTP/1.1"
    assert second[0] == "PATCH /upstreams/app/10.0.0.1%3A80 HTTP/1.1"
    assert "Content-Type: application/json" in second
    for lines in (first, second):
        assert [line for line in lines if line.lower().startswith("host:")] == [
            f"Host: {server.address}"
        ]
        assert "Authorization: Bearer sesame" in lines


def test_json(capsys: Capture) -> None:
    servers = [server_of(reason="\x1b\x7f\u202e")]
    with saying(success(servers)) as server:
        assert run(["status", "--json", "--admin", f"http://{server.address}/"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == servers
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_config_is_shown_as_it_is(capsys: Capture) -> None:
    text = 'a = "b"\n\n[c]\nd = "\x1b"\n'
    answer = response(text.encode(), kind="application/toml; charset=utf-8")
    with saying(answer, answer, response(text.encode(), kind="text/html")) as server:
        assert run(["config", "--admin", server.address]) == 0
        assert capsys.readouterr().out == 'a = "b"\n\n[c]\nd = "\\u001b"\n'
        assert run(["config", "--json", "--admin", server.address]) == 0
        assert json.loads(capsys.readouterr().out) == {"config": text}
        assert run(["config", "--admin", server.address]) == 3


def test_refusals_are_a_line_a_mistake(capsys: Capture) -> None:
    text = "lb.toml:1: bind: wrong\nlb.toml:2: \x1b[31mevil"
    with saying(failure(text, "422 Unprocessable Content")) as server:
        assert run(["reload", "--admin", server.address]) == 1
    assert capsys.readouterr() == (
        "",
        "balancebeam: lb.toml:1: bind: wrong\nbalancebeam: lb.toml:2: \\u001b[31mevil\n",
    )


def test_a_failure_in_the_older_form(capsys: Capture) -> None:
    body = json.dumps({"status": "fail", "data": {"title": "a not alive"}}).encode()
    with saying(response(body, "404 Not Found")) as server:
        assert run(["register", "a:1", "--admin", server.address]) == 1
    assert capsys.readouterr().err == "balancebeam: a not alive\n"


def test_the_token_is_never_shown(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    with saying(failure("the token is wanted", "401 Unauthorized")) as server:
        assert run(["status", "--admin", server.address]) == 1
        without = capsys.readouterr().err
        assert run(["status", "--admin", server.address, "--token-file", str(token)]) == 1
        wrong = capsys.readouterr().err
    assert "the token is wanted; give it by --token-file FILE or BALANCEBEAM_TOKEN" in without
    assert "the token is wanted, and the one that was given is wrong" in wrong
    monkeypatch.setenv("BALANCEBEAM_TOKEN", "se same")
    assert run(["status"]) == 2
    err = capsys.readouterr().err
    assert "BALANCEBEAM_TOKEN holds no token" in err
    assert "se same" not in err + without + wrong


GOOD = b'{"status": "success", "data": []}'

NOT_UNDERSTOOD = "does not answer as the admin listener of a balancebeam does"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", NOT_UNDERSTOOD),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "does not speak HTTP"),
        (response(b"<html>", kind="text/html"), f"{NOT_UNDERSTOOD} (status 200, text/html)"),
        (response(b"", "302 Found", more=b"Location: /\r\n"), f"{NOT_UNDERSTOOD} (status 302"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", f"{NOT_UNDERSTOOD} (status 204, no media type)"),
        (response(b"[]"), NOT_UNDERSTOOD),
        (response(b"{}"), NOT_UNDERSTOOD),
        (response(b'{"status": "error", "data": []}', "500 Oh"), NOT_UNDERSTOOD),
        (response(b'{"status": "error", "data": "no"}'), NOT_UNDERSTOOD),
        (response(GOOD, "500 Oh"), NOT_UNDERSTOOD),
        (response(b"\xff\xfe"), NOT_UNDERSTOOD),
        (response(b"9" * 10000), NOT_UNDERSTOOD),
        (response(b"[" * 100000), NOT_UNDERSTOOD),
        (response(b"", kind="\x1b[31m"), NOT_UNDERSTOOD),
        (response(GOOD)[:-5], "stopped in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + GOOD[:-5], NOT_UNDERSTOOD),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + GOOD[:5],
            "stopped in the middle of its answer",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
            "answers with more than 16777216 bytes",
        ),
    ],
)
def test_answers_that_are_none(capsys: Capture, answer: bytes, words: str) -> None:
    with saying(answer) as server:
        assert run(["status", "--admin", server.address]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"balancebeam: {server.address} {words}")
    assert line.isprintable()


@pytest.mark.parametrize(
    "head", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"], ids=["to the end", "chunked"]
)
def test_an_answer_without_end_is_bounded(capsys: Capture, head: bytes) -> None:
    def serve(connection: Any, number: int) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        for _ in range(2 * MAX_RESPONSE_BYTES // 65536):
            connection.sendall(b" " * 65536)

    with ScriptedServer(serve) as server:
        assert run(["status", "--admin", server.address]) == 3
    # PyPy's older http.client does not believe in a chunk of -1 octets.
    err = capsys.readouterr().err
    assert "answers with more than 16777216 bytes" in err or "does not speak HTTP" in err


def _silent(connection: Any, number: int) -> None:
    connection.recv(1)
    while connection.recv(65536):
        pass


def _dripping(connection: Any, number: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    connection.settimeout(0.02)
    while True:
        try:
            if not connection.recv(65536):
                return
        except OSError:
            connection.sendall(b"y")


@pytest.mark.parametrize("serve", [_silent, _dripping])
def test_the_time_limit_is_for_all_of_an_answer(
    capsys: Capture, serve: Callable[[Any, int], None]
) -> None:
    with ScriptedServer(serve) as server:
        assert run(["status", "--timeout", "0.2", "--admin", server.address]) == 3
    assert "did not answer within 0.2 seconds" in capsys.readouterr().err


def test_nobody_is_there(capsys: Capture, tmp_path: Path) -> None:
    for place, words in (
        (f"127.0.0.1:{free_port()}", "nothing listens at"),
        (f"unix:{tmp_path}/none", "nothing listens at"),
        (f"unix:/{'x' * 200}", "cannot be reached: AF_UNIX path too long"),
        (f"unix:{tmp_path}/file/x", "cannot be reached: Not a directory"),
        (f"{'x' * 70}:1", "cannot be reached"),
        ("nobody.invalid:1", "cannot be reached"),
    ):
        (tmp_path / "file").touch()
        assert run(["status", "--admin", place]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
        assert place in line


def test_a_deep_answer(capsys: Capture) -> None:
    # As deep as it is read, but too deep to be written.
    deep: Any = []
    for _ in range(480):
        deep = [deep]
    body = b'{"status": "success", "data": %b}' % json.dumps([{"reason": deep}]).encode()
    with saying(response(body)) as server:
        assert run(["status", "--json", "--admin", server.address]) in (0, 3)


def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(success([])) as server:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            for port in (free_port(), server.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        connection = AdminClient(parse_admin_address("lb.example:1"))
        assert connection.request("GET", "/upstreams") == []


# As a program.


def command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "balancebeam", *arguments],
        capture_output="stdout" not in more,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **more,
    )


def test_commands_need_nothing_but_the_standard_library() -> None:
    program = (
        "import sys; sys.path.insert(0, '.'); sys.argv[1:] = ['status', '--admin', 'unix:/none']\n"
        "from balancebeam.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 3, end.code\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "found = roots & {'twisted', 'zope', 'attr', 'attrs'}\n"
        "assert not found, found\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-S", "-c", program], cwd=root, timeout=TIMEOUT, check=True)


def test_help() -> None:
    shown = command("drain", "--help")
    assert shown.returncode == 0
    assert "--wait [SECONDS]" in shown.stdout
    assert "exit status:" in shown.stdout


def test_wrong_usage_has_its_status() -> None:
    done = command("weight", "10.0.0.1:80", "many")
    assert done.returncode == 2
    assert "'many' is no whole number" in done.stderr
    assert command("status", "--admin", "nowhere").returncode == 2


def test_a_reader_that_leaves_is_no_error() -> None:
    servers = success([server_of(reason="x" * 1000)] * 1000)
    with saying(servers) as server:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = command(
                "status", "--admin", server.address, stdout=writing, stderr=subprocess.PIPE
            )
        finally:
            os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_one() -> None:
    with saying(success([])) as server, open("/dev/full", "w") as full:
        done = command("status", "--admin", server.address, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "balancebeam: cannot write: No space left on device\n"


def test_letters_that_the_terminal_lacks() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with saying(success([server_of(reason="größer")])) as server:
        done = command("status", "--admin", server.address, env=environment)
    assert done.returncode == 0
    assert "gr\\xf6\\xdfer" in done.stdout


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal(no_color: str) -> None:
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "80"}
    ours, theirs = pty.openpty()
    try:
        with saying(success([server_of(reason="x" * 60)])) as server:
            done = command(
                "status",
                "--admin",
                server.address,
                stdout=theirs,
                stderr=subprocess.PIPE,
                env=environment,
            )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("\x1b[32mup\x1b[0m" in shown) == (not no_color)
    assert "    " + "x" * 60 in shown.replace("\r", "").splitlines()
