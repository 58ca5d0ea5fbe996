"""What the command line says, over what the file says."""

from __future__ import annotations

from typing import Any, Callable

from attrs import evolve

from balancebeam.core.addresses import ListenAddress
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    SecretSource,
    ServerSettings,
    Settings,
)

# The limit of --max-requests-per-minute.
PER_MINUTE = "requests-per-minute"


class Overrides:
    """
    `settings`, changed option by option. Those that a frontend or a pool has
    are changed in all of them; `problems` are those that cannot be.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[str] = []

    def update_frontends(self, change: Callable[[FrontendSettings], FrontendSettings]) -> None:
        """Change all frontends."""
        changed = tuple(map(change, self.settings.frontends))
        self.settings = evolve(self.settings, frontends=changed)

    def update_pools(self, change: Callable[[PoolSettings], PoolSettings]) -> None:
        """Change all pools."""
        self.settings = evolve(self.settings, pools=tuple(map(change, self.settings.pools)))

    def set_bind(self, addresses: tuple[ListenAddress, ...]) -> None:
        """Listen at these instead."""
        if len(self.settings.frontends) > 1:
            self.problems.append("--bind: the file has several frontends; change it there")
        else:
            self.update_frontends(lambda frontend: evolve(frontend, bind=addresses))

    def set_servers(self, servers: tuple[ServerSettings, ...], option: str) -> None:
        """Balance over these, which `option` gives, instead."""
        if len(self.settings.pools) > 1:
            self.problems.append(f"{option}: the file has several pools; change it there")
        else:
            self.update_pools(lambda pool: evolve(pool, servers=servers))

    def set_mode(self, mode: str) -> None:
        """Balance requests, or connections."""

        def change(frontend: FrontendSettings) -> FrontendSettings:
            # For requests there is an access log.
            log = frontend.log_connections and mode == "tcp"
            return evolve(frontend, mode=mode, log_connections=log)

        self.update_frontends(change)

    def set_timeout(self, name: str, seconds: float) -> None:
        """Change one time limit."""
        change: dict[str, Any] = {name: seconds}
        if name in ("connect", "upstream"):
            self.update_pools(lambda pool: evolve(pool, timeouts=evolve(pool.timeouts, **change)))
        else:
            self.update_frontends(lambda one: evolve(one, timeouts=evolve(one.timeouts, **change)))

    def set_cooldown(self, seconds: float) -> None:
        """Avoid servers that failed for so long."""

        def change(passive: OutlierDetectionSettings) -> OutlierDetectionSettings:
            return evolve(passive, cooldown=seconds)

        self.update_pools(lambda pool: evolve(pool, passive=change(pool.passive)))

    def set_health_checks(self, path: str | None, interval: float | None) -> None:
        """Turn active checks on, and change them."""

        def change(pool: PoolSettings) -> PoolSettings:
            checks = pool.active or HealthCheckSettings()
            return evolve(
                pool,
                active=evolve(
                    checks, path=path or checks.path, interval=interval or checks.interval
                ),
            )

        self.update_pools(change)

    def set_requests_per_minute(self, maximum: int) -> None:
        """Let in so many requests of a client in a minute; 0 for any number."""
        limit = (LimitSettings(maximum, 60.0, name=PER_MINUTE),) if maximum else ()

        def change(frontend: FrontendSettings) -> FrontendSettings:
            others = tuple(one for one in frontend.limits if one.name != PER_MINUTE)
            return evolve(frontend, limits=limit + others)

        self.update_frontends(change)

    def enable_registration(self, networks: tuple[str, ...]) -> None:
        """Let servers register through the first frontend that speaks HTTP."""
        frontends = list(self.settings.frontends)
        for number, frontend in enumerate(frontends):
            if frontend.mode == "http":
                frontends[number] = evolve(
                    frontend,
                    registration=True,
                    registration_from=networks or frontend.registration_from,
                )
                self.settings = evolve(self.settings, frontends=tuple(frontends))
                return
        self.problems.append("--registration: belongs to --mode http")

    def set_registration_from(self, networks: tuple[str, ...]) -> None:
        """Let servers register from there, where they may."""
        self.update_frontends(
            lambda one: evolve(one, registration_from=networks) if one.registration else one
        )

    def set_admin(self, bind: ListenAddress | None, token_file: str | None) -> None:
        """Let the operator in there."""
        admin = self.settings.admin
        if admin is None and bind is None:
            self.problems.append(
                "--admin-token-file: there is no admin listener; give --admin ADDR"
            )
            return
        admin = admin or AdminSettings()
        self.settings = evolve(
            self.settings,
            admin=AdminSettings(
                bind or admin.bind, SecretSource(file=token_file) if token_file else admin.token
            ),
        )
