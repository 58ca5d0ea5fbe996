"""
`twistd balancebeam`: the command line, checked and made into a service.

Nothing here or imported from here touches a socket or installs a reactor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, ClassVar, TypeVar

from twisted.application.service import IService
from twisted.python import usage

from balancebeam import __version__
from balancebeam.config.addresses import read_listen_address, read_server
from balancebeam.config.checks import read_check_path
from balancebeam.config.hosts import read_hosts
from balancebeam.config.mini import MiniSettings, read_mini
from balancebeam.config.numbers import read_count, read_seconds
from balancebeam.errors import StartError
from balancebeam.model import (
    ActiveChecks,
    LimitSettings,
    PassiveChecks,
    ServerSettings,
    Settings,
    Timeouts,
)
from balancebeam.policy.networks import read_network
from balancebeam.policy.selectors import ALGORITHMS, algorithm_name

T = TypeVar("T")

MODES = ("http", "tcp")


class Options(usage.Options):
    """
    The options of the command line.

    `settings` is what they say, once they are parsed. Mistakes end the
    program with a `StartError` that names all of them.
    """

    synopsis = "[options]"
    longdesc = (
        "Balances HTTP requests or TCP connections over servers. --upstream, --bind and "
        "--trusted-proxy may be given several times. For a first look: "
        "twistd -n balancebeam --demo 3, and then curl http://localhost:1100/"
    )

    optParameters: ClassVar[list[list[str | None]]] = [
        ["mode", "m", None, "What to balance: http (unless told otherwise) or tcp."],
        ["algorithm", "a", "round-robin", f"How to choose: {', '.join(sorted(ALGORITHMS))}."],
        ["active-health-check-path", None, None, "Ask servers for this path if they are well."],
        [
            "active-health-check-interval",
            "t",
            None,
            "Ask servers every so many seconds if they are well (10).",
        ],
        [
            "max-requests-per-minute",
            None,
            "0",
            "Requests of one client that are let in in a minute; 0 for any number.",
        ],
        ["cooldown", None, "10", "How long a server that failed is avoided, in seconds."],
        ["connect-timeout", None, "5", "Time limit for connecting to a server, in seconds."],
        ["upstream-timeout", None, "60", "Time limit for a server's silence, in seconds."],
        ["header-timeout", None, "10", "Time limit for a client's request head, in seconds."],
        ["idle-timeout", None, "60", "Time limit for an idle client, in seconds."],
        ["config", "c", None, "A file in the form of mini-balancer: [frontend] bind_on, ..."],
        ["hosts", None, None, "A file with one server, host:port, a line."],
        ["demo", None, "0", "Start so many tiny servers and balance over them too."],
    ]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self._bind: list[str] = []
        self._upstreams: list[str] = []
        self._trusted: list[str] = []
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
        self._trusted.append(network)

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
            raise StartError(f"balancebeam: {error}; see twistd balancebeam --help") from None

    def postOptions(self) -> None:
        problems = self._problems
        mini = self._read_config()
        self["mode"] = self["mode"] or "http"
        for argument in self._arguments:
            problems.append(f"{argument!r} is no option; servers are given by --upstream")
        if self["mode"] not in MODES:
            problems.append(f"--mode: {self['mode']!r} is no mode; give {' or '.join(MODES)}")
        settings = Settings(
            servers=tuple(self._read_servers()) or mini.servers,
            bind=tuple(self._read_each("bind", self._bind, read_listen_address))
            or mini.bind
            or Settings(servers=()).bind,
            mode=self["mode"],
            # S3 told of every connection.
            log_connections=self["config"] is not None,
            algorithm=self._read("algorithm", algorithm_name) or "",
            active=self._read_checks(),
            passive=PassiveChecks(
                cooldown=self._read("cooldown", lambda text: read_seconds(text, zero=True)) or 0.0
            ),
            timeouts=Timeouts(
                *(
                    self._read(f"{name}-timeout", read_seconds) or 1.0
                    for name in ("connect", "upstream", "header", "idle")
                )
            ),
            trusted_proxies=tuple(self._read_each("trusted-proxy", self._trusted, read_network)),
            limits=self._read_limits(),
            demo=self._read("demo", lambda text: read_count(text, 0, 100)) or 0,
        )
        if not settings.servers and not settings.demo and not problems:
            problems.append("no server to balance over; give --upstream host:port (or --demo 3)")
        if problems:
            raise StartError("\n".join(f"balancebeam: {problem}" for problem in problems))
        self.settings = settings

    def _read_config(self) -> MiniSettings:
        """S3's file, which is about TCP and nothing else."""
        if self["config"] is None:
            return MiniSettings((), ())
        if self["mode"] not in (None, "tcp"):
            self._problems.append("--mode: the file given by --config is about TCP; give tcp")
        self["mode"] = "tcp"
        mini, problems = read_mini(self["config"])
        self._problems += [f"--config: {problem}" for problem in problems]
        return mini

    def _read_checks(self) -> ActiveChecks | None:
        """Either option turns active checks on."""
        path = self["active-health-check-path"]
        interval = self["active-health-check-interval"]
        if path is None and interval is None:
            return None
        default = ActiveChecks(None if self["mode"] == "tcp" else "/")
        if path is not None and self["mode"] == "tcp":
            self._problems.append(
                "--active-health-check-path: a path belongs to --mode http; "
                "give --active-health-check-interval to check by connecting"
            )
        elif path is not None:
            path = self._read("active-health-check-path", read_check_path)
        if interval is not None:
            interval = self._read("active-health-check-interval", read_seconds)
        return ActiveChecks(path or default.path, interval or default.interval)

    def _read_limits(self) -> tuple[LimitSettings, ...]:
        most = self._read("max-requests-per-minute", lambda text: read_count(text, 0, 10**9))
        return (LimitSettings(most, 60.0, name="requests-per-minute"),) if most else ()

    def _read_servers(self) -> list[ServerSettings]:
        servers = self._read_each("upstream", self._upstreams, read_server)
        if self["hosts"] is not None:
            found, problems = read_hosts(self["hosts"])
            servers += found
            self._problems += [f"--hosts: {problem}" for problem in problems]
        seen = set()
        for server in servers:
            if server.address in seen:
                self._problems.append(f"--upstream: {server.address} is given twice")
            seen.add(server.address)
        return servers

    def _read_each(self, name: str, texts: Sequence[str], read: Callable[[str], T]) -> list[T]:
        values: list[T] = []
        for text in texts:
            try:
                values.append(read(text))
            except ValueError as error:
                self._problems.append(f"--{name}: {error}")
        if name == "bind" and len(set(values)) < len(values):
            self._problems.append("--bind: an address is given twice")
        return values

    def _read(self, name: str, read: Callable[[str], T]) -> T | None:
        return next(iter(self._read_each(name, [self[name]], read)), None)


def makeService(options: Options) -> IService:
    """What `twistd balancebeam` runs."""
    # Imported here, because twisted.web.proxy imports the reactor, and twistd
    # may only just have chosen one.
    from balancebeam.service import make_balancer

    service: Any = make_balancer(options.settings)
    return IService(service)
