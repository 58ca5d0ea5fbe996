"""
`twistd balancebeam`: the command line, checked and made into a service.

Nothing here or imported from here touches a socket or installs a reactor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, ClassVar, TypeVar

from attrs import evolve
from twisted.application.service import IService
from twisted.python import usage

from balancebeam import __version__
from balancebeam.balancing.registry import ALGORITHMS, algorithm_name
from balancebeam.cli.arguments import COMMANDS
from balancebeam.config.addresses import parse_listen_address, parse_server
from balancebeam.config.cross_checks import check_admin, validate_settings
from balancebeam.config.dump import dump
from balancebeam.config.frontends import ACCESS_LOG_FORMATS, MODES
from balancebeam.config.hosts_file import load_hosts
from balancebeam.config.overrides import Overrides
from balancebeam.config.reader import Document, escape_control
from balancebeam.config.toml_file import finalize, load_document, with_defaults
from balancebeam.config.values import parse_check_path, parse_count, parse_seconds
from balancebeam.core.errors import StartupError
from balancebeam.core.networks import parse_network
from balancebeam.core.settings import ServerSettings, Settings

T = TypeVar("T")

TIMEOUTS = ("connect", "upstream", "header", "idle", "tunnel")


class Options(usage.Options):
    """
    The options of the command line.

    `settings` is what they say, once they are parsed; `load_settings` finds out what
    they say by now, as files may have changed. Mistakes raise a `StartupError`
    that names all of them.
    """

    synopsis = "[options]"
    longdesc = (
        "Balances HTTP requests or TCP connections over servers. --upstream, --bind, "
        "--trusted-proxy and --registration-from may be given several times. For a first look: "
        "twistd -n balancebeam --demo 3, and then curl http://localhost:1100/. "
        f"A balancer that runs with --admin obeys these commands: {', '.join(COMMANDS)}; "
        "see balancebeam status --help."
    )

    optParameters: ClassVar[list[list[str | None]]] = [
        ["mode", "m", None, "What to balance: http (unless told otherwise) or tcp."],
        ["algorithm", "a", None, f"How to choose (round-robin): {', '.join(sorted(ALGORITHMS))}."],
        ["active-health-check-path", None, None, "Ask servers for this path if they are well (/)."],
        [
            "active-health-check-interval",
            "t",
            None,
            "Ask servers every so many seconds if they are well (10).",
        ],
        [
            "max-requests-per-minute",
            None,
            None,
            "Requests of one client that are let in in a minute; 0 for any number.",
        ],
        ["cooldown", None, None, "How long a server that failed is avoided, in seconds (10)."],
        ["connect-timeout", None, None, "Time limit for connecting to a server, in seconds (5)."],
        ["upstream-timeout", None, None, "Time limit for a server's silence, in seconds (60)."],
        ["header-timeout", None, None, "Time limit for a client's request head, in seconds (10)."],
        ["idle-timeout", None, None, "Time limit for an idle client, in seconds (60)."],
        [
            "tunnel-timeout",
            None,
            None,
            "Time limit for a silent TCP connection or WebSocket, in seconds; 0 for none (0).",
        ],
        ["hosts", None, None, "A file with one server, host:port, a line."],
        ["config", "c", None, "The configuration file; what else is given here wins."],
        ["admin", None, None, "Where the operator is let in, such as 127.0.0.1:1101."],
        ["admin-token-file", None, None, "The file with the token that the operator needs."],
        ["state", None, None, "A file in which what is set at run time outlives a restart."],
        ["drain-timeout", None, None, "How long to wait for clients at the end, in seconds (30)."],
        ["access-log", None, None, "A file for a line about every request; - for stdout."],
        ["access-log-format", None, None, "combined (unless told otherwise) or json."],
        ["demo", None, None, "Start so many tiny servers and balance over them too."],
    ]

    optFlags: ClassVar[list[list[str | None]]] = [
        ["registration", None, "Let servers register by POST /register, from this machine."],
        ["check", None, "Read everything, print it as a configuration file, and exit."],
    ]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self._bind: list[str] = []
        self._upstreams: list[str] = []
        self._trusted_proxies: list[str] = []
        self._registration_from: list[str] = []
        self._arguments: Sequence[str] = ()
        self._problems: list[str] = []

    def opt_bind(self, address: str) -> None:
        """Where to listen: host:port, [v6]:port, unix:/path or an endpoint description."""
        self._bind.append(address)

    opt_b = opt_bind

    def opt_upstream(self, address: str) -> None:
        """A server: host:port, [v6]:port, unix:/path or http://..., [,weight=N][,backup]."""
        self._upstreams.append(address)

    opt_u = opt_upstream

    def opt_algo(self, name: str) -> None:
        """The same as --algorithm."""
        self["algorithm"] = name

    def opt_trusted_proxy(self, network: str) -> None:
        """A network (CIDR) of proxies whose X-Forwarded-* fields are believed."""
        self._trusted_proxies.append(network)

    def opt_registration_from(self, network: str) -> None:
        """A network (CIDR) from which servers may register too."""
        self._registration_from.append(network)

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"balancebeam {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        self._arguments = arguments

    def parseOptions(self, options: list[str] | None = None) -> None:
        # twistd would print all of the help in front of the one line that
        # matters.
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise StartupError(f"balancebeam: {error}; see twistd balancebeam --help") from None

    def postOptions(self) -> None:
        self.settings = self.load_settings()
        if self["check"]:
            print(dump(self.settings), end="")
            raise SystemExit(0)

    def load_settings(self) -> Settings:
        """What the options and the files say. Raises `StartupError`."""
        self._problems = []
        settings, document = Settings((), ()), None
        if self["config"] is not None:
            settings, document = load_document(self["config"])
            self._problems += document.problems
        for argument in self._arguments:
            self._problems.append(f"{argument!r} is no option; servers are given by --upstream")
        overrides = Overrides(with_defaults(settings))
        self._apply_overrides(overrides)
        self._problems += overrides.problems
        settings = finalize(overrides.settings)
        if not self._problems:
            self._problems += validate_settings(settings, document)
        self._check_admin(settings, document)
        if self._problems:
            raise StartupError.from_problems(map(escape_control, self._problems))
        return settings

    def _check_admin(self, settings: Settings, document: Document | None) -> None:
        """Have the operator's way in be safe, whatever else is wrong."""
        told = document is not None and document.has_error(("admin",))
        problem = check_admin(settings.admin) if settings.admin is not None and not told else None
        if problem is None:
            return
        key, what = problem
        option = {"bind": "admin", "token_file": "admin-token-file"}.get(key)
        place = f"--{option}"
        if document is not None and (option is None or self[option] is None):
            place = f"{document.location(('admin', key))}: admin.{key}"
        self._problems.append(f"{place}: {what}")

    def _apply_overrides(self, overrides: Overrides) -> None:
        """Have the options win, one by one."""
        self._apply_frontend_overrides(overrides)
        self._apply_pool_overrides(overrides)
        admin = self._parse_option("admin", parse_listen_address)
        if admin is not None or (self["admin"] is None and self["admin-token-file"] is not None):
            overrides.set_admin(admin, self["admin-token-file"])
        changes: dict[str, Any] = {}
        if self["state"] is not None:
            changes["state"] = self["state"]
        if self["drain-timeout"] is not None:
            changes["drain_timeout"] = self._parse_option("drain-timeout", _seconds_or_zero)
        if self["demo"] is not None:
            changes["demo"] = self._parse_option("demo", lambda text: parse_count(text, 0, 100))
        overrides.settings = evolve(overrides.settings, **changes)

    def _apply_frontend_overrides(self, overrides: Overrides) -> None:
        mode = self._parse_option("mode", _choice_parser(MODES))
        if mode is not None:
            overrides.set_mode(mode)
        if self._bind:
            overrides.set_bind(tuple(self._parse_values("bind", self._bind, parse_listen_address)))
        if self._trusted_proxies:
            trusted = tuple(
                self._parse_values("trusted-proxy", self._trusted_proxies, parse_network)
            )
            overrides.update_frontends(lambda one: evolve(one, trusted_proxies=trusted))
        most = self._parse_option(
            "max-requests-per-minute", lambda text: parse_count(text, 0, 10**9)
        )
        if most is not None:
            overrides.set_requests_per_minute(most)
        networks = tuple(
            self._parse_values("registration-from", self._registration_from, parse_network)
        )
        if self["registration"]:
            overrides.enable_registration(networks)
        elif networks and any(one.registration for one in overrides.settings.frontends):
            overrides.set_registration_from(networks)
        elif networks:
            self._problems.append("--registration-from: has no meaning without --registration")
        if self["access-log"] is not None:
            overrides.update_frontends(lambda one: evolve(one, access_log=self["access-log"]))
        style = self._parse_option("access-log-format", _choice_parser(ACCESS_LOG_FORMATS))
        if style is not None:
            overrides.update_frontends(lambda one: evolve(one, access_log_format=style))

    def _apply_pool_overrides(self, overrides: Overrides) -> None:
        if self._upstreams or self["hosts"] is not None:
            option = "--upstream" if self._upstreams else "--hosts"
            overrides.set_servers(tuple(self._load_servers()), option)
        algorithm = self._parse_option("algorithm", algorithm_name)
        if algorithm is not None:
            overrides.update_pools(lambda pool: evolve(pool, algorithm=algorithm))
        for name in TIMEOUTS:
            read = _seconds_or_zero if name == "tunnel" else parse_seconds
            seconds = self._parse_option(f"{name}-timeout", read)
            if seconds is not None:
                overrides.set_timeout(name, seconds)
        cooldown = self._parse_option("cooldown", _seconds_or_zero)
        if cooldown is not None:
            overrides.set_cooldown(cooldown)
        path = self._parse_option("active-health-check-path", parse_check_path)
        interval = self._parse_option("active-health-check-interval", parse_seconds)
        if path is not None and all(one.mode == "tcp" for one in overrides.settings.frontends):
            self._problems.append(
                "--active-health-check-path: a path belongs to --mode http; "
                "give --active-health-check-interval to check by connecting"
            )
        if path is not None or interval is not None:
            overrides.set_health_checks(path, interval)

    def _load_servers(self) -> list[ServerSettings]:
        servers = self._parse_values("upstream", self._upstreams, parse_server)
        if self["hosts"] is not None:
            found, problems = load_hosts(self["hosts"])
            servers += found
            self._problems += [f"--hosts: {problem}" for problem in problems]
        seen = set()
        for server in servers:
            if server.address in seen:
                self._problems.append(f"--upstream: {server.address} is given twice")
            seen.add(server.address)
        return servers

    def _parse_values(self, name: str, texts: Sequence[str], parse: Callable[[str], T]) -> list[T]:
        values: list[T] = []
        for text in texts:
            try:
                values.append(parse(text))
            except ValueError as error:
                self._problems.append(f"--{name}: {error}")
        if name == "bind":
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            self._problems += [f"--bind: {address} is given twice" for address in twice]
        return values

    def _parse_option(self, name: str, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the option; `None` if it was not given."""
        if self[name] is None:
            return None
        return next(iter(self._parse_values(name, [self[name]], parse)), None)


def _seconds_or_zero(text: str) -> float:
    return parse_seconds(text, allow_zero=True)


def _choice_parser(choices: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not known; give {' or '.join(choices)}")
        return text

    return read


def makeService(options: Options) -> IService:
    """What `twistd balancebeam` runs."""
    # Imported here, because twisted.web.proxy imports the reactor, and twistd
    # may only just have chosen one.
    from twisted.internet import reactor

    from balancebeam.process.hot_restart import PidFile
    from balancebeam.process.inherited_sockets import find_inherited_sockets
    from balancebeam.process.signals import SignalService
    from balancebeam.process.systemd import SystemdNotifier
    from balancebeam.server.balancer import make_balancer

    service: Any = make_balancer(
        options.settings,
        reactor,
        load_settings=options.load_settings,
        find_inherited_sockets=find_inherited_sockets,
    )
    # What `twistd` itself goes by.
    pid_file = PidFile(getattr(options, "parent", None) or {})
    SignalService(service, reactor, SystemdNotifier(), pid_file).setServiceParent(service)
    return IService(service)
