"""
Command line options, and the settings that result from options and files.

Importing this module installs no reactor: `twistd --reactor` chooses it later.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Callable, ClassVar

from attrs import evolve
from twisted.python import usage

from balancebeam import __version__
from balancebeam.acme.loading import check_client
from balancebeam.balancing.registry import ALGORITHMS, algorithm_name
from balancebeam.cli.arguments import COMMANDS
from balancebeam.config.addresses import parse_bind_address, parse_listen_address, parse_server
from balancebeam.config.cross_checks import check_admin, validate_settings
from balancebeam.config.dump import dump
from balancebeam.config.frontends import ACCESS_LOG_FORMATS, MODES
from balancebeam.config.hosts_file import load_hosts
from balancebeam.config.overrides import Overrides
from balancebeam.config.reader import Document, escape_control
from balancebeam.config.toml_file import LOG_FORMATS, finalize, load_document, with_defaults
from balancebeam.config.values import parse_check_path, parse_count, parse_seconds, status_range
from balancebeam.core.errors import ConfigError
from balancebeam.core.networks import parse_network
from balancebeam.core.settings import ServerSettings, Settings
from balancebeam.observability.trace_export import load_exporter
from balancebeam.process.tls_options import TlsOptions, check_tls_files

#: The timeouts with an option of their own, `--NAME-timeout`.
TIMEOUTS = ("connect", "upstream", "header", "idle", "tunnel")


class CommandLineOptions(TlsOptions):
    """
    The options of `twistd balancebeam`; they override the configuration file.

    `parseOptions` and `load_settings` raise a `ConfigError` that names every
    invalid option, key and file.

    Attributes:
        settings: the settings after `parseOptions`.
    """

    synopsis = "[options]"
    longdesc = (
        "Balances HTTP requests or TCP connections over servers. --upstream, --bind, "
        "--trusted-proxy and --registration-from are repeatable. To try it: "
        "twistd -n balancebeam --demo 3, then curl http://localhost:1100/. "
        f"Commands for a running balancer with --admin: {', '.join(COMMANDS)}; "
        "see balancebeam status --help."
    )

    optParameters: ClassVar[list[list[str | None]]] = [
        ["mode", "m", None, "Protocol to balance: http (default) or tcp."],
        [
            "algorithm",
            "a",
            None,
            f"Load balancing algorithm (round-robin): {', '.join(sorted(ALGORITHMS))}.",
        ],
        [
            "active-health-check-path",
            None,
            None,
            "Enable active health checks, with this path in HTTP mode (/).",
        ],
        [
            "active-health-check-interval",
            "t",
            None,
            "Enable active health checks, with this interval in seconds (10).",
        ],
        [
            "active-health-check-status",
            None,
            None,
            "Enable active health checks in HTTP mode, passed by a status in this range (200-299).",
        ],
        [
            "max-requests-per-minute",
            None,
            None,
            "Rate limit per client address in requests per minute; 0 disables it (0).",
        ],
        ["cooldown", None, None, "Ejection time of a failed server in seconds (10)."],
        ["connect-timeout", None, None, "Timeout for connecting to a server in seconds (5)."],
        [
            "upstream-timeout",
            None,
            None,
            "Timeout for a server that sends no data while a response is pending, in seconds (60).",
        ],
        ["header-timeout", None, None, "Timeout for the head of a request in seconds (10)."],
        ["idle-timeout", None, None, "Timeout of idle client connections in seconds (60)."],
        [
            "tunnel-timeout",
            None,
            None,
            "Idle timeout of TCP connections and WebSockets in seconds; 0 disables it (0).",
        ],
        ["hosts", None, None, "File with one server per line, host:port."],
        ["config", "c", None, "Configuration file; options override it."],
        ["admin", None, None, "Address of the admin API, such as 127.0.0.1:1101."],
        ["admin-token-file", None, None, "File with the token of the admin API."],
        [
            "state",
            None,
            None,
            "State file: registered servers, weights and admin states survive restarts.",
        ],
        [
            "drain-timeout",
            None,
            None,
            "Time for active requests and connections to finish at shutdown, in seconds (30).",
        ],
        ["access-log", None, None, "Access log file; - for stdout."],
        ["access-log-format", None, None, "Format of the access log: combined (default) or json."],
        ["log-format", None, None, "Format of the program's own log: text (default) or json."],
        ["demo", None, None, "Number of demo servers to start and to balance over."],
    ]

    optFlags: ClassVar[list[list[str | None]]] = [
        [
            "registration",
            None,
            "Accept POST /register from loopback addresses on the traffic listeners.",
        ],
        ["check", None, "Print the effective configuration as TOML and exit."],
    ]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self._bind: list[str] = []
        self._upstreams: list[str] = []
        self._trusted_proxies: list[str] = []
        self._registration_from: list[str] = []
        self._arguments: Sequence[str] = ()

    def opt_bind(self, address: str) -> None:
        """Listen address: host:port, [v6]:port, unix:/path or an endpoint description."""
        self._bind.append(address)

    opt_b = opt_bind

    def opt_upstream(self, address: str) -> None:
        """Server: host:port, unix:/path, http(s)://... or tls://..., with [,weight=N][,backup]."""
        self._upstreams.append(address)

    opt_u = opt_upstream

    def opt_algo(self, name: str) -> None:
        """Alias of --algorithm."""
        self["algorithm"] = name

    def opt_trusted_proxy(self, network: str) -> None:
        """Network (CIDR) of proxies whose X-Forwarded-* headers are trusted."""
        self._trusted_proxies.append(network)

    def opt_registration_from(self, network: str) -> None:
        """Additional network (CIDR) from which servers may register."""
        self._registration_from.append(network)

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"balancebeam {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        self._arguments = arguments

    def parseOptions(self, options: list[str] | None = None) -> None:
        # For a UsageError, twistd would print the whole help before the message.
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise ConfigError(f"{error}; see twistd balancebeam --help") from None

    def postOptions(self) -> None:
        self.settings = self.load_settings()
        if self["check"]:
            # A start reads the files of TLS when it builds the services.
            warnings = check_tls_files(self.settings)
            if self.settings.acme is not None and self.settings.acme_names:
                check_client(self.settings.acme)
            if self.settings.tracing is not None:
                load_exporter(self.settings.tracing)
            for warning in warnings:
                print(f"warning: {escape_control(warning)}", file=sys.stderr)
            print(dump(self.settings), end="")
            raise SystemExit(0)

    def load_settings(self) -> Settings:
        """Combine the options with the present content of the files. Raises `ConfigError`."""
        self._problems = []
        settings, document = Settings((), ()), None
        if self["config"] is not None:
            settings, document = load_document(self["config"])
            self._problems += document.problems
        for argument in self._arguments:
            self._problems.append(
                f"unexpected argument {argument!r}: expected options; add servers with --upstream"
            )
        overrides = Overrides(with_defaults(settings))
        self._apply_overrides(overrides)
        self._problems += overrides.problems
        settings = finalize(overrides.settings)
        if not self._problems:
            self._problems += validate_settings(settings, document)
        self._check_admin(settings, document)
        if self._problems:
            raise ConfigError(*map(escape_control, self._problems))
        return settings

    def _check_admin(self, settings: Settings, document: Document | None) -> None:
        """Check that the admin listener is secure, even if other settings are invalid."""
        reported = document is not None and document.has_error(("admin",))
        problem = None
        if settings.admin is not None and not reported:
            problem = check_admin(settings.admin)
        if problem is None:
            return
        key, message = problem
        option = {"bind": "admin", "token_file": "admin-token-file"}.get(key)
        location = f"--{option}"
        if document is not None and (option is None or self[option] is None):
            location = f"{document.location(('admin', key))}: admin.{key}"
        self._problems.append(f"{location}: {message}")

    def _apply_overrides(self, overrides: Overrides) -> None:
        """Apply every option that is present to the settings of the file."""
        self._apply_frontend_overrides(overrides)
        self._apply_pool_overrides(overrides)
        self._apply_tls_overrides(overrides)
        admin = self._parse_option("admin", parse_listen_address)
        if admin is not None or (self["admin"] is None and self["admin-token-file"] is not None):
            overrides.set_admin(admin, self["admin-token-file"])
        changes: dict[str, Any] = {}
        if self["state"] is not None:
            changes["state"] = self["state"]
        if self["drain-timeout"] is not None:
            changes["drain_timeout"] = self._parse_option("drain-timeout", _seconds_or_zero)
        log_format = self._parse_option("log-format", _choice_parser(LOG_FORMATS))
        if log_format is not None:
            changes["log_format"] = log_format
        if self["demo"] is not None:
            changes["demo"] = self._parse_option("demo", lambda text: parse_count(text, 0, 100))
        overrides.settings = evolve(overrides.settings, **changes)

    def _apply_frontend_overrides(self, overrides: Overrides) -> None:
        """Apply the options that concern frontends."""
        mode = self._parse_option("mode", _choice_parser(MODES))
        if mode is not None:
            overrides.set_mode(mode)
        if self._bind:
            overrides.set_bind(tuple(self._parse_values("bind", self._bind, parse_bind_address)))
        if self._trusted_proxies:
            trusted = tuple(
                self._parse_values("trusted-proxy", self._trusted_proxies, parse_network)
            )
            overrides.update_frontends(lambda frontend: evolve(frontend, trusted_proxies=trusted))
        max_requests = self._parse_option(
            "max-requests-per-minute", lambda text: parse_count(text, 0, 10**9)
        )
        if max_requests is not None:
            overrides.set_requests_per_minute(max_requests)
        networks = tuple(
            self._parse_values("registration-from", self._registration_from, parse_network)
        )
        if self["registration"]:
            overrides.enable_registration(networks)
        elif networks and any(frontend.registration for frontend in overrides.settings.frontends):
            overrides.set_registration_from(networks)
        elif networks:
            self._problems.append("--registration-from: requires --registration")
        if self["access-log"] is not None:
            overrides.update_frontends(
                lambda frontend: evolve(frontend, access_log=self["access-log"])
            )
        log_format = self._parse_option("access-log-format", _choice_parser(ACCESS_LOG_FORMATS))
        if log_format is not None:
            overrides.update_frontends(
                lambda frontend: evolve(frontend, access_log_format=log_format)
            )

    def _apply_pool_overrides(self, overrides: Overrides) -> None:
        """Apply the options that concern pools."""
        if self._upstreams or self["hosts"] is not None:
            option = "--upstream" if self._upstreams else "--hosts"
            overrides.set_servers(tuple(self._load_servers()), option)
        algorithm = self._parse_option("algorithm", algorithm_name)
        if algorithm is not None:
            overrides.update_pools(lambda pool: evolve(pool, algorithm=algorithm))
        for name in TIMEOUTS:
            parse = _seconds_or_zero if name == "tunnel" else parse_seconds
            seconds = self._parse_option(f"{name}-timeout", parse)
            if seconds is not None:
                overrides.set_timeout(name, seconds)
        cooldown = self._parse_option("cooldown", _seconds_or_zero)
        if cooldown is not None:
            overrides.set_cooldown(cooldown)
        path = self._parse_option("active-health-check-path", parse_check_path)
        interval = self._parse_option("active-health-check-interval", parse_seconds)
        frontends = overrides.settings.frontends
        status = self._parse_option("active-health-check-status", status_range)
        for name, value in (("path", path), ("status", status)):
            if value is not None and all(frontend.mode == "tcp" for frontend in frontends):
                self._problems.append(
                    f"--active-health-check-{name}: requires --mode http; in TCP mode, "
                    "--active-health-check-interval enables checks that connect"
                )
        if path is not None or interval is not None or status is not None:
            overrides.set_health_checks(path, interval, status)

    def _load_servers(self) -> list[ServerSettings]:
        """The servers of `--upstream`, followed by the lines of `--hosts`."""
        servers = self._parse_values("upstream", self._upstreams, parse_server)
        if self["hosts"] is not None:
            listed, problems = load_hosts(self["hosts"])
            servers += listed
            self._problems += [f"--hosts: {problem}" for problem in problems]
        seen = set()
        for server in servers:
            if server.address in seen:
                self._problems.append(f"--upstream: duplicate address {server.address}")
            seen.add(server.address)
        return servers


def _seconds_or_zero(text: str) -> float:
    """Parse a number of seconds of which 0 disables the timeout."""
    return parse_seconds(text, allow_zero=True)


def _choice_parser(choices: Sequence[str]) -> Callable[[str], str]:
    """Return a parser that accepts only `choices`."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"invalid value {text!r}: expected {' or '.join(choices)}")
        return text

    return parse
