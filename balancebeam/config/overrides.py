"""Overrides: options of the command line that replace settings of the configuration file."""

from __future__ import annotations

from typing import Any, Callable

from attrs import evolve

from balancebeam.core.addresses import ListenAddress
from balancebeam.core.settings import (
    AcmeSettings,
    AdminSettings,
    FrontendSettings,
    FrontendTlsSettings,
    HealthCheckSettings,
    LimitSettings,
    PoolSettings,
    PoolTlsSettings,
    SecretSource,
    ServerSettings,
    Settings,
)

# The name of the limit of --max-requests-per-minute.
PER_MINUTE = "requests-per-minute"

# The name of the frontend of --redirect-https.
REDIRECT_HTTPS = "redirect-https"

# Settings of pools; the other timeouts are settings of frontends.
_POOL_TIMEOUTS = ("connect", "upstream")


class Overrides:
    """
    Settings of a file, to which options are applied one by one.

    An option for a setting of frontends or pools changes all of them.

    Attributes:
        settings: the result so far. It has at least one frontend and one pool.
        problems: one message for each option that cannot be applied.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[str] = []

    def update_frontends(self, change: Callable[[FrontendSettings], FrontendSettings]) -> None:
        """Replace every frontend with the result of `change`."""
        self.settings = evolve(self.settings, frontends=tuple(map(change, self.settings.frontends)))

    def update_pools(self, change: Callable[[PoolSettings], PoolSettings]) -> None:
        """Replace every pool with the result of `change`."""
        self.settings = evolve(self.settings, pools=tuple(map(change, self.settings.pools)))

    def set_bind(self, addresses: tuple[ListenAddress, ...]) -> None:
        """Replace the addresses of the frontend; ambiguous with several frontends."""
        self._update_only_frontend("--bind", "bind", lambda only: evolve(only, bind=addresses))

    def _update_only_frontend(
        self, option: str, key: str, change: Callable[[FrontendSettings], FrontendSettings]
    ) -> None:
        """
        Replace the only frontend, apart from redirects to `https`, with the result of `change`.

        Args:
            option: the option, for the message if there are several frontends.
            key: the key in the file that has no such restriction.
            change: returns the new settings of the frontend.
        """
        frontends = self.settings.frontends
        found = [frontend for frontend in frontends if not frontend.redirect_https]
        if len(found or frontends) > 1:
            self.problems.append(
                f"{option}: ambiguous, as the file has several frontends: "
                f"expected {key} in the file"
            )
            return
        only = (found or list(frontends))[0]
        self.update_frontends(lambda frontend: change(frontend) if frontend is only else frontend)

    def set_servers(self, servers: tuple[ServerSettings, ...], option: str) -> None:
        """
        Replace the servers of the pool; ambiguous with several pools.

        Args:
            option: the option that names the servers, for the message.
        """
        if len(self.settings.pools) > 1:
            self.problems.append(
                f"{option}: ambiguous, as the file has several pools: "
                "expected upstreams in the file"
            )
        else:
            self.update_pools(lambda pool: evolve(pool, servers=servers))

    def set_mode(self, mode: str) -> None:
        """Set the mode of the frontends, "http" or "tcp"."""

        def change(frontend: FrontendSettings) -> FrontendSettings:
            if frontend.redirect_https:
                return frontend
            # HTTP mode has no connection log, but the access log.
            log_connections = frontend.log_connections and mode == "tcp"
            return evolve(frontend, mode=mode, log_connections=log_connections)

        self.update_frontends(change)

    def set_timeout(self, name: str, seconds: float) -> None:
        """Set one timeout, of pools or of frontends, by its key."""
        change: dict[str, Any] = {name: seconds}
        if name in _POOL_TIMEOUTS:
            self.update_pools(lambda pool: evolve(pool, timeouts=evolve(pool.timeouts, **change)))
        else:
            self.update_frontends(
                lambda frontend: evolve(frontend, timeouts=evolve(frontend.timeouts, **change))
            )

    def set_cooldown(self, seconds: float) -> None:
        """Set the time for which failed servers are ejected."""
        self.update_pools(lambda pool: evolve(pool, passive=evolve(pool.passive, cooldown=seconds)))

    def set_health_checks(
        self, path: str | None, interval: float | None, status: tuple[int, int] | None = None
    ) -> None:
        """
        Enable active health checks, or change them where they are enabled.

        Args:
            path: the path of the check, or `None` to keep the configured or default path.
            interval: seconds between checks, or `None` to keep the configured or default interval.
            status: first and last status that passes, or `None` to keep the configured or default
                range.
        """

        def change(pool: PoolSettings) -> PoolSettings:
            checks = pool.active or HealthCheckSettings()
            return evolve(
                pool,
                active=evolve(
                    checks,
                    path=path or checks.path,
                    interval=interval or checks.interval,
                    status=status or checks.status,
                ),
            )

        self.update_pools(change)

    def set_requests_per_minute(self, maximum: int) -> None:
        """Limit the requests of each client per minute, before other limits; 0 for no limit."""
        limit = (LimitSettings(maximum, 60.0, name=PER_MINUTE),) if maximum else ()

        def change(frontend: FrontendSettings) -> FrontendSettings:
            # A file printed by --check has this limit as one of its own, which is replaced.
            others = tuple(other for other in frontend.limits if other.name != PER_MINUTE)
            return evolve(frontend, limits=limit + others)

        self.update_frontends(change)

    def enable_registration(self, networks: tuple[str, ...]) -> None:
        """
        Enable the registration of servers on the first HTTP frontend.

        Args:
            networks: the networks of `registration_from`; the configured ones are kept if empty.
        """
        frontends = list(self.settings.frontends)
        for number, frontend in enumerate(frontends):
            if frontend.mode == "http" and not frontend.redirect_https:
                frontends[number] = evolve(
                    frontend,
                    registration=True,
                    registration_from=networks or frontend.registration_from,
                )
                self.settings = evolve(self.settings, frontends=tuple(frontends))
                return
        self.problems.append("--registration: not available in mode tcp: expected --mode http")

    def set_registration_from(self, networks: tuple[str, ...]) -> None:
        """Replace the networks of `registration_from` where registration is enabled."""
        self.update_frontends(
            lambda frontend: (
                evolve(frontend, registration_from=networks) if frontend.registration else frontend
            )
        )

    def set_admin(self, bind: ListenAddress | None, token_file: str | None) -> None:
        """
        Enable the admin listener, or change it.

        Args:
            bind: its address, or `None` to keep that of the file.
            token_file: the file of its token, or `None` to keep the token of the file.
        """
        admin = self.settings.admin
        if admin is None and bind is None:
            self.problems.append("--admin-token-file: no admin listener: expected --admin ADDR")
            return
        admin = admin or AdminSettings()
        self.settings = evolve(
            self.settings,
            admin=AdminSettings(
                bind or admin.bind, SecretSource(file=token_file) if token_file else admin.token
            ),
        )

    def set_tls(self, option: str, **changes: Any) -> None:
        """
        Enable TLS on the frontend, or change it; ambiguous with several frontends.

        Args:
            option: the option, for messages.
            **changes: attributes of `FrontendTlsSettings`.
        """
        self._update_only_frontend(
            option,
            "[frontend.tls]",
            lambda only: evolve(only, tls=evolve(only.tls or FrontendTlsSettings(), **changes)),
        )

    def set_acme(self, has_names: bool, email: str | None, default_storage: str) -> None:
        """
        Add an ACME account if there are names for it, or change that of the file.

        Args:
            has_names: whether options have names for ACME; the file may have some too.
            email: its contact address, or `None` to keep that of the file.
            default_storage: its directory, if the file has none.
        """
        acme = self.settings.acme
        frontends = self.settings.frontends
        if acme is None and (has_names or any(f.tls is not None and f.tls.acme for f in frontends)):
            acme = AcmeSettings(default_storage)
        if acme is None:
            self.problems.append("--acme-email: no ACME account: expected --acme NAME too")
            return
        self.settings = evolve(self.settings, acme=evolve(acme, email=email or acme.email))

    def add_redirect(self, bind: ListenAddress) -> None:
        """Add a plain frontend that redirects to `https`, or replace that of an earlier dump."""
        frontends = tuple(
            frontend
            for frontend in self.settings.frontends
            if not (frontend.name == REDIRECT_HTTPS and frontend.redirect_https)
        )
        if not any(frontend.tls for frontend in frontends):
            self.problems.append(
                "--redirect-https: no frontend with TLS: expected --tls, --tls-self-signed or "
                "--acme too"
            )
        redirect = FrontendSettings(name=REDIRECT_HTTPS, bind=(bind,), redirect_https=True)
        self.settings = evolve(self.settings, frontends=(*frontends, redirect))

    def set_upstream_tls(self, ca: str | None, insecure: bool) -> None:
        """
        Change TLS of all pools that have it, for some servers at least.

        Args:
            ca: file with the CA certificates of servers, or `None` for the system's.
            insecure: whether servers are not verified.
        """
        option = "--upstream-ca" if ca is not None else "--upstream-insecure"
        if ca is not None and insecure:
            self.problems.append(f"{option}: not used with --upstream-insecure: expected only one")
            return
        if not any(map(_uses_tls, self.settings.pools)):
            self.problems.append(
                f"{option}: no server with TLS: "
                "expected --upstream https://host:port, or [pool.tls]"
            )
            return

        def change(pool: PoolSettings) -> PoolSettings:
            if not _uses_tls(pool):
                return pool
            tls = pool.tls or PoolTlsSettings(all_servers=False)
            return evolve(pool, tls=evolve(tls, ca=ca, verify=not insecure))

        self.update_pools(change)


def _uses_tls(pool: PoolSettings) -> bool:
    """Return whether connections to servers of `pool` may use TLS."""
    return pool.tls is not None or any(server.tls for server in pool.servers)
