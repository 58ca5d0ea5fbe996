"""
The certificate service: TLS contexts of all frontends, and the renewal of their certificates.

Certificates are from files, from ACME, or self-signed. A reload calls `prepare`, which reads the
files, and `commit`. Between reloads the files are watched: they are read again and checked in a
thread when they have changed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

from attrs import define
from twisted.application import service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from balancebeam.core.errors import ConfigError
from balancebeam.core.frontend_settings import FrontendSettings
from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.net.periodic import PeriodicCall
from balancebeam.tls.certificates import Certificate, format_time, parse_certificate
from balancebeam.tls.selection import FrontendContexts
from balancebeam.tls.self_signed import LOCAL_NAMES, self_signed_certificate
from balancebeam.tls.signatures import Signatures
from balancebeam.tls.sources import (
    FileChange,
    FrontendFiles,
    PreparedFrontend,
    prepare_frontend,
    read_changed,
    read_files,
)

# Seconds between two looks at the files: a change is active within a minute, even if reading
# takes long.
CHECK_INTERVAL = 30.0

# Seconds between warnings about a certificate that expires soon.
EXPIRY_WARNING_INTERVAL = 24 * 3600.0

# Self-signed certificates are replaced so many seconds before they expire.
_SELF_SIGNED_RENEWAL = 30 * 24 * 3600.0


@define(eq=False)
class _Frontend:
    """
    The active certificates of a frontend.

    Attributes:
        active: What is in use.
        seen: The state of the files when they were last read, with or without success.
        contexts: The selector of its connections.
    """

    active: PreparedFrontend
    seen: Signatures
    contexts: FrontendContexts


class CertificateService(service.Service):
    """
    Holds the TLS contexts of all frontends with TLS.

    Attributes:
        challenges: The contexts of tls-alpn-01 challenges (RFC 8737) in progress, by server name,
            of all frontends.
    """

    name = "certificates"
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        defer_to_thread: Callable[..., Deferred[Any]],
    ) -> None:
        """
        Create the service without frontends.

        Args:
            clock: Triggers the checks of files.
            now: Returns the time in POSIX seconds.
            defer_to_thread: Runs a blocking call in the reactor's thread pool, as
                `twisted.internet.threads.deferToThread` does.
        """
        self.challenges: dict[str, ssl.SSLContext] = {}
        self._now = now
        self._defer_to_thread = defer_to_thread
        self._frontends: dict[str, _Frontend] = {}
        self._acme: dict[str, Certificate] = {}
        self._self_signed: dict[tuple[str, ...], Certificate] = {}
        # Counts changes, so that the result of a thread that began before one is discarded.
        self._generation = 0
        self._expiry_warnings_at = 0.0
        self._checks = PeriodicCall(
            clock,
            CHECK_INTERVAL,
            self._check,
            lambda failure: self._log.failure("checks of certificates stopped", failure),
        )

    def contexts(self, frontend: str) -> FrontendContexts | None:
        """Return the contexts of a frontend by its name; `None` without TLS."""
        found = self._frontends.get(frontend)
        return None if found is None else found.contexts

    def expiry_times(self) -> Mapping[tuple[str, str], float]:
        """
        Return the end of the validity of each certificate, for metrics.

        Returns:
            POSIX seconds by frontend and name of the certificate; the earliest of several
            certificates with the same name.
        """
        times: dict[tuple[str, str], float] = {}
        for frontend, certificate in self._certificates():
            key = (frontend, certificate.name)
            times[key] = min(certificate.not_after, times.get(key, certificate.not_after))
        return times

    def _certificates(self) -> Iterator[tuple[str, Certificate]]:
        """Yield the active certificates, with the names of their frontends."""
        for name, frontend in self._frontends.items():
            for certificate in frontend.active.contexts.certificates:
                yield name, certificate

    def prepare(self, frontends: Iterable[FrontendSettings]) -> dict[str, PreparedFrontend]:
        """
        Read the certificates of frontends.

        Returns:
            The argument of `commit`. It needs no rollback.

        Raises:
            ConfigError: For each file that cannot be used, the frontend, the file and the reason.
        """
        prepared: dict[str, PreparedFrontend] = {}
        problems: list[str] = []
        for frontend in frontends:
            if frontend.tls is None:
                continue
            try:
                files = read_files(frontend.tls)
                generated = self._generated(frontend.tls, files)
                prepared[frontend.name] = prepare_frontend(
                    frontend.name, frontend.mode, frontend.tls, files, generated
                )
            except ConfigError as error:
                problems += [f"frontend {frontend.name}: {line}" for line in error.problems]
        if problems:
            raise ConfigError(*problems)
        return prepared

    def _generated(
        self, settings: FrontendTlsSettings, files: FrontendFiles
    ) -> tuple[Certificate, ...]:
        """Return the certificates of a frontend that are not from files."""
        certificates = [self._acme[name] for name in settings.acme if name in self._acme]
        if settings.self_signed:
            certificates.append(self._self_signed_certificate(LOCAL_NAMES))
        names = {name for certificate in files.certificates for name in certificate.names}
        missing = tuple(
            name for name in settings.acme if name not in self._acme and name not in names
        )
        if missing:
            # Until ACME has obtained certificates.
            certificates.append(self._self_signed_certificate(missing))
        return tuple(certificates)

    def _self_signed_certificate(self, names: tuple[str, ...]) -> Certificate:
        """Return a certificate that reloads do not change."""
        now = self._now()
        certificate = self._self_signed.get(names)
        if certificate is None or certificate.not_after - now < _SELF_SIGNED_RENEWAL:
            certificate = self._self_signed[names] = self_signed_certificate(now, names)
        return certificate

    def commit(self, prepared: Mapping[str, PreparedFrontend]) -> None:
        """Activate the result of `prepare`; all other frontends have no TLS any more."""
        self._generation += 1
        old, self._frontends = self._frontends, {}
        for name, frontend in prepared.items():
            if name in old:
                self._frontends[name] = old[name]
                self._activate(frontend)
            else:
                contexts = FrontendContexts(frontend.contexts, self.challenges)
                added = _Frontend(frontend, frontend.files.signatures, contexts)
                self._frontends[name] = added
                if self.running:
                    self._log_warnings(name, frontend.contexts.certificates)
        if self.running:
            self._update_checks()

    def set_acme_certificate(self, name: str, chain: bytes, key: bytes) -> None:
        """
        Serve a certificate from ACME to new connections of all frontends that have `name`.

        Args:
            name: The host name.
            chain: The certificate and its chain in PEM.
            key: The private key in PEM.

        Raises:
            ValueError: The certificate cannot be used; nothing has changed.
        """
        previous = self._acme.get(name)
        self._acme[name] = parse_certificate(f"ACME certificate of {name}", chain + key)
        try:
            changed = [
                self._prepare_again(frontend.active)
                for frontend in self._frontends.values()
                if name in frontend.active.settings.acme
            ]
        except ConfigError as error:
            del self._acme[name]
            if previous is not None:
                self._acme[name] = previous
            raise ValueError(str(error)) from None
        self._generation += 1
        for prepared in changed:
            self._activate(prepared)

    def _prepare_again(self, active: PreparedFrontend) -> PreparedFrontend:
        """Return a frontend with its present files and the certificates that ACME has now."""
        generated = self._generated(active.settings, active.files)
        return prepare_frontend(
            active.name, active.mode, active.settings, active.files, generated, active.contexts
        )

    def _activate(self, prepared: PreparedFrontend) -> None:
        """Use `prepared` for new handshakes of its frontend, and log new certificates."""
        frontend = self._frontends[prepared.name]
        for warning in frontend.contexts.commit(prepared.contexts):
            self._log_warning(prepared.name, warning)
        old, frontend.active = frontend.active, prepared
        frontend.seen = prepared.files.signatures
        previous = set(old.contexts.certificates)
        new = [item for item in prepared.contexts.certificates if item not in previous]
        for certificate in new:
            self._log.info(
                "certificate {name} of frontend {frontend} reloaded: valid until {end}",
                name=certificate.name,
                frontend=prepared.name,
                end=format_time(certificate.not_after),
            )
        self._log_warnings(prepared.name, new)
        if prepared.files.client_ca != old.files.client_ca:
            self._log.info(
                "client CA certificates of frontend {frontend} reloaded", frontend=prepared.name
            )

    def startService(self) -> None:
        super().startService()
        self._expiry_warnings_at = self._now()
        for name, frontend in self._frontends.items():
            self._log_warnings(name, frontend.active.contexts.certificates)
        self._update_checks()

    def stopService(self) -> Any:
        self._generation += 1
        self._checks.stop()
        return super().stopService()

    def _update_checks(self) -> None:
        """Check files and expiry periodically while any frontend has TLS."""
        if self._frontends:
            self._checks.start()
        else:
            self._checks.stop()

    def _log_warnings(self, frontend: str, certificates: Iterable[Certificate]) -> None:
        for certificate in certificates:
            for warning in certificate.warnings(self._now()):
                self._log_warning(frontend, warning)

    def _log_warning(self, frontend: str, warning: str) -> None:
        self._log.warn("frontend {frontend}: {detail}", frontend=frontend, detail=warning)

    def _check(self) -> Deferred[None]:
        """Log expiring certificates, renew self-signed ones, and read changed files."""
        check = maybeDeferred(self._start_check)
        return check.addErrback(
            lambda failure: self._log.failure("certificates not checked", failure)
        )

    def _start_check(self) -> Deferred[None]:
        now = self._now()
        if now - self._expiry_warnings_at >= EXPIRY_WARNING_INTERVAL:
            self._expiry_warnings_at = now
            for name, certificate in self._certificates():
                warning = certificate.expiry_warning(now)
                if warning is not None:
                    self._log_warning(name, warning)
        for frontend in self._frontends.values():
            active = frontend.active
            if self._generated(active.settings, active.files) != active.generated:
                self._activate(self._prepare_again(active))
        watched = [(frontend.active, frontend.seen) for frontend in self._frontends.values()]
        reading = self._defer_to_thread(read_changed, watched)
        return reading.addCallback(self._apply_changes, self._generation)

    def _apply_changes(self, changes: Sequence[FileChange], generation: int) -> None:
        if generation != self._generation:
            return
        for change in changes:
            self._frontends[change.name].seen = change.seen
            for problem in change.problems:
                self._log.error(
                    "certificates of frontend {frontend} not reloaded: {problem}",
                    frontend=change.name,
                    problem=problem,
                )
            if change.prepared is not None:
                self._activate(change.prepared)
