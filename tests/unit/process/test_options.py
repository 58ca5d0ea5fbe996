"""Command line options."""

from __future__ import annotations

import os
import shutil
import tempfile
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.api import Timeouts
from balancebeam.core.addresses import (
    EndpointAddress,
    ProxyProtocolAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import HealthCheckSettings, ServerSettings
from balancebeam.process.options import CommandLineOptions
from tests.helpers.memory import flatten_settings


def parse(*arguments: str) -> SimpleNamespace:
    """The settings of a command line, with frontend and pool side by side."""
    options = CommandLineOptions()
    options.parseOptions(list(arguments))
    return SimpleNamespace(settings=flatten_settings(options.settings))


def scratch_file(case: SynchronousTestCase) -> str:
    """The path of a file in a folder that is removed after the test."""
    folder = tempfile.mkdtemp()
    case.addCleanup(shutil.rmtree, folder)
    return os.path.join(folder, "hosts")


class ValidOptionsTests(SynchronousTestCase):
    """Valid options and the resulting settings."""

    def test_defaults(self) -> None:
        """Only a server is required."""
        settings = parse("--upstream", "127.0.0.1:8080").settings
        self.assertEqual(settings.bind, (TcpAddress("0.0.0.0", 1100),))
        self.assertEqual(settings.servers, (ServerSettings(TcpAddress("127.0.0.1", 8080)),))
        self.assertEqual(settings.timeouts, Timeouts(5, 60, 10, 60))
        self.assertEqual((settings.algorithm, settings.passive.cooldown), ("round-robin", 10))
        self.assertEqual((settings.demo, settings.trusted_proxies), (0, ()))

    def test_many_options(self) -> None:
        """Options are combined, and repeatable options keep their order."""
        hosts = scratch_file(self)
        with open(hosts, "w") as file:
            file.write("# comment\n10.0.0.1:80\n\n  [::1]:81  # IPv6\n")
        settings = parse(
            *("-b", "[::]:80", "--bind=unix:/run/x", "-b", "tcp:81:interface=127.0.0.1"),
            *("-u", "a:1,weight=5", "--upstream", "unix:/run/y,backup", "-u", "http://b/"),
            *("--hosts", hosts, "--algo", "RR", "--cooldown", "0", "--connect-timeout", "0.5"),
            *("--upstream-timeout=1", "--header-timeout=2", "--idle-timeout=3"),
            *("--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1", "--demo", "2"),
            *("--mode", "http"),
        ).settings
        self.assertEqual(
            settings.bind,
            (
                TcpAddress("::", 80),
                UnixAddress("/run/x"),
                EndpointAddress("tcp:81:interface=127.0.0.1"),
            ),
        )
        self.assertEqual(
            settings.servers,
            (
                ServerSettings(TcpAddress("a", 1), 5),
                ServerSettings(UnixAddress("/run/y"), 1, backup=True),
                ServerSettings(TcpAddress("b", 80)),
                ServerSettings(TcpAddress("10.0.0.1", 80)),
                ServerSettings(TcpAddress("::1", 81)),
            ),
        )
        self.assertEqual(settings.timeouts, Timeouts(0.5, 1, 2, 3))
        self.assertEqual((settings.algorithm, settings.passive.cooldown), ("round-robin", 0))
        self.assertEqual(settings.trusted_proxies, ("10.0.0.0/8", "::1/128"))
        self.assertEqual(settings.demo, 2)

    def test_either_option_enables_health_checks(self) -> None:
        """The path or the interval enables active health checks."""
        self.assertIsNone(parse("-u", "a:1").settings.active)
        cases: dict[tuple[str, ...], HealthCheckSettings] = {
            ("--active-health-check-path", "/up?x=1"): HealthCheckSettings("/up?x=1", 10.0),
            ("-t", "2.5"): HealthCheckSettings("/", 2.5),
            ("--active-health-check-interval", "10"): HealthCheckSettings("/", 10.0),
            ("--active-health-check-path=/", "-t1"): HealthCheckSettings("/", 1.0),
            ("-t1", "--active-health-check-status", "200-399"): HealthCheckSettings(
                "/", 1.0, status=(200, 399)
            ),
            ("--active-health-check-status=404",): HealthCheckSettings(status=(404, 404)),
        }
        for arguments, expected in cases.items():
            self.assertEqual(parse("-u", "a:1", *arguments).settings.active, expected)

    def test_rate_limit(self) -> None:
        """--max-requests-per-minute is a sliding window per client; 0 disables it."""
        self.assertEqual(parse("-u", "a:1").settings.limits, ())
        self.assertEqual(parse("-u", "a:1", "--max-requests-per-minute=0").settings.limits, ())
        (limit,) = parse("-u", "a:1", "--max-requests-per-minute", "600").settings.limits
        self.assertEqual((limit.requests, limit.window, limit.key), (600, 60.0, ("client",)))
        self.assertEqual(limit.algorithm, "sliding-window")

    def test_proxy_protocol(self) -> None:
        """The PROXY protocol is enabled per listen address and per server."""
        settings = parse(
            *("-b", "haproxy:0.0.0.0:80", "-b", "haproxy:unix:/run/x", "-b", "haproxy:tcp:81"),
            *("-u", "a:1,proxy=v1", "-u", "b:1,weight=2,proxy=v2"),
        ).settings
        self.assertEqual(
            settings.bind,
            (
                ProxyProtocolAddress(TcpAddress("0.0.0.0", 80)),
                ProxyProtocolAddress(UnixAddress("/run/x")),
                ProxyProtocolAddress(EndpointAddress("tcp:81")),
            ),
        )
        self.assertEqual([server.proxy_protocol for server in settings.servers], [1, 2])

    def test_algorithm_names(self) -> None:
        """Algorithms have abbreviations, and case does not matter."""
        for text, name in (
            ("random", "random"),
            ("rr", "round-robin"),
            ("WRR", "weighted-round-robin"),
            ("Srr", "sticky-round-robin"),
            ("LC", "least-connections"),
            ("PTC", "power-of-two"),
            ("p2c", "power-of-two"),
            ("SIH", "source-ip-hash"),
            ("Least-Response-Time", "least-response-time"),
        ):
            for option in ("-a", "--algorithm", "--algo"):
                self.assertEqual(parse("-u", "a:1", option, text).settings.algorithm, name)


class InvalidOptionsTests(SynchronousTestCase):
    """Invalid options: one line for each problem, and all problems at once."""

    def problems(self, *arguments: str) -> list[str]:
        """The problems of an invalid command line, one line each."""
        error: ConfigError = self.assertRaises(ConfigError, parse, *arguments)
        self.assertNotEqual(error.problems, [])
        self.assertTrue(all("\n" not in problem for problem in error.problems), error.problems)
        return error.problems

    def test_no_server(self) -> None:
        """A command line without servers is rejected."""
        (problem,) = self.problems()
        self.assertIn("--upstream", problem)

    def test_single_problems(self) -> None:
        """A problem names the option, the value and the expected form."""
        for arguments, words in (
            (["--upstream", "8080"], ["--upstream", "'8080'", "host:port"]),
            (["--upstream", "a:99999"], ["--upstream", "65535"]),
            (["--upstream", "a:0"], ["--upstream", "65535"]),
            (["--upstream", "300.1.1.1:80"], ["--upstream", "300.1.1.1"]),
            (["--upstream", "tls://a"], ["--upstream", "tls://host:port"]),
            (["--upstream", "a:1,weight=-1"], ["--upstream", "0 to 256"]),
            (["--upstream", "a:1,weight=257"], ["--upstream", "0 to 256"]),
            (["--upstream", "a:1,colour=red"], ["--upstream", "colour=red", "weight=N"]),
            (["--upstream", "a:1", "--upstream", "a:1"], ["--upstream", "duplicate"]),
            (["-u", "a:1", "-b", "a:1", "-b", "a:1"], ["--bind", "duplicate"]),
            (["-u", "a:1", "-b", "nowhere"], ["--bind", "'nowhere'"]),
            (["-u", "a:1", "-b", "ssl:443"], ["--bind", "expected one without TLS", "--tls"]),
            (["-u", "a:1", "-b", "haproxy:haproxy:tcp:80"], ["--bind", "once"]),
            (["-u", "a:1", "-b", "haproxy:80"], ["--bind", "'80'"]),
            (["-u", "a:1,proxy=v3"], ["--upstream", "proxy=v2"]),
            (["-u", "a:1", "--max-requests-per-minute", "-1"], ["--max-requests-per-minute"]),
            (["-u", "a:1", "--max-requests-per-minute", "many"], ["'many'", "whole number"]),
            (["-u", "a:1", "-a", "best"], ["--algorithm", "'best'", "round-robin"]),
            (["-u", "a:1", "--mode", "udp"], ["--mode", "'udp'", "http or tcp"]),
            (
                ["-u", "a:1", "-m", "tcp", "--active-health-check-path", "/"],
                ["--active-health-check-path", "--mode http", "interval"],
            ),
            (["-u", "a:1", "--cooldown", "soon"], ["--cooldown", "'soon'", "seconds"]),
            (["-u", "a:1", "--idle-timeout", "0"], ["--idle-timeout", "more than 0"]),
            (["-u", "a:1", "--idle-timeout", "inf"], ["--idle-timeout", "'inf'"]),
            (["-u", "a:1", "--idle-timeout", "nan"], ["--idle-timeout", "'nan'"]),
            (["-u", "a:1", "--trusted-proxy", "all"], ["--trusted-proxy", "'all'", "CIDR"]),
            (
                ["-u", "a:1", "--active-health-check-path", "health"],
                ["--active-health-check-path", "'health'", "/health"],
            ),
            (["-u", "a:1", "--active-health-check-path", "/a b"], ["'/a b'"]),
            (
                ["-u", "a:1", "-m", "tcp", "--active-health-check-status", "200"],
                ["--active-health-check-status", "--mode http", "interval"],
            ),
            (
                ["-u", "a:1", "--active-health-check-status", "2xx"],
                ["--active-health-check-status", "2xx", "200-299"],
            ),
            (
                ["-u", "a:1", "--active-health-check-status", "399-200"],
                ["--active-health-check-status", "399-200", "200-299"],
            ),
            (["-u", "a:1", "-t", "0"], ["--active-health-check-interval", "more than 0"]),
            (["--demo", "-1"], ["--demo", "0 to 100"]),
            (["-u", "a:1", "extra"], ["'extra'", "--upstream"]),
            (["-u", "a:1", "--nonsense"], ["nonsense"]),
            (["--hosts", "/nonexistent"], ["--hosts", "/nonexistent", "cannot be read"]),
        ):
            with self.subTest(arguments):
                (problem,) = self.problems(*arguments)
                for word in words:
                    self.assertIn(word, problem)

    def test_all_problems_at_once(self) -> None:
        """All problems of a command line and of a hosts file are reported together."""
        hosts = scratch_file(self)
        with open(hosts, "w") as file:
            file.write("10.0.0.1:80\nnonsense\n\n10.0.0.1:x\n")
        problems = self.problems(
            *("-u", "a", "-u", "b", "-b", "c", "--algo", "d", "--demo", "e", "--hosts", hosts)
        )
        self.assertEqual(len(problems), 7)
        for text in (
            f"{hosts}:2: invalid address 'nonsense'",
            f"{hosts}:4: invalid address '10.0.0.1:x'",
        ):
            self.assertTrue(any(text in problem for problem in problems), problems)

    def test_empty_hosts_file(self) -> None:
        """A hosts file without servers is rejected."""
        hosts = scratch_file(self)
        with open(hosts, "w") as file:
            file.write("# empty\n")
        (problem,) = self.problems("--hosts", hosts)
        self.assertIn("no servers", problem)
