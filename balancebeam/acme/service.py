"""The ACME service: obtains missing certificates and renews them before they expire."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable

from attrs import define, field, frozen
from twisted.application import service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.acme.certificate import Certificate
from balancebeam.acme.interfaces import (
    TLS_ALPN_01,
    AcmeError,
    CertificateAuthority,
    CertificateReceiver,
    CertificateStorage,
)
from balancebeam.core.interfaces import Random

# Share of the lifetime after which a certificate is renewed, and the largest random addition,
# which distributes the renewals of many names that were obtained together.
RENEWAL_FRACTION = 2 / 3
MAX_RENEWAL_JITTER = 0.02

# Seconds. The delay after the first failure; each further failure doubles it, up to a day.
MIN_BACKOFF = 60.0
MAX_BACKOFF = 24 * 3600.0
# 60 s doubled eleven times is more than a day.
MAX_DOUBLINGS = 11
BACKOFF_JITTER = 0.2

# Seconds between two requests for the renewal information of the server, which moves the renewal
# forward if certificates are to be revoked. Also limits the effect of a clock that is set.
RENEWAL_INFO_INTERVAL = 24 * 3600.0

# Seconds. A new certificate is not renewed earlier: if the clock of this machine is wrong, each
# new certificate has expired already.
MIN_RENEWAL_DELAY = 3600.0

# Orders at the same time, so that many names neither fill the machine with threads nor exceed
# the limits of the ACME server.
MAX_JOBS = 2


@define(eq=False)
class _Managed:
    """
    A host name and its certificate.

    Attributes:
        name: the host name.
        certificate: the current certificate; `None` before the first.
        renew_at: POSIX time of its renewal.
        failures: failed attempts since the last success.
        attempt: index of the challenge type of the next order; changed by each failure.
        timer: the next attempt or the next request for renewal information.
    """

    name: str
    certificate: Certificate | None = None
    renew_at: float = 0.0
    failures: int = 0
    attempt: int = 0
    timer: IDelayedCall | None = None


@frozen(eq=False)
class _Job:
    """
    A call of the certificate authority that runs in a thread.

    Attributes:
        managed: its host name.
        succeeded: called with the result, unless the job was cancelled.
        failed: called with the failure, unless the job was cancelled.
        cancelled: stops the call before its next request.
    """

    managed: _Managed
    succeeded: Callable[[_Managed, Any], None]
    failed: Callable[[_Managed, Failure], None]
    cancelled: threading.Event = field(factory=threading.Event)


class AcmeService(service.Service):
    """
    Keeps a certificate for each host name; each name has a certificate of its own.

    The start serves stored certificates, and orders missing ones at once. Failures are logged
    and repeated with increasing delays, of one name without effect on others. The calls of the
    certificate authority run in threads, one per name and `MAX_JOBS` in total. Nothing waits for
    them: the result of a call is ignored if its name was removed or the service stopped. Its
    certificate is stored nevertheless.

    A failed order is repeated with the next type of challenge, because the address of the ACME
    server's validation requests is unknown here: port 80 may be closed by a firewall, or port 443
    may belong to another TLS terminator.
    """

    name = "acme"
    _log = Logger()

    def __init__(
        self,
        authority: CertificateAuthority,
        storage: CertificateStorage,
        certificate_obtained: CertificateReceiver,
        clock: IReactorTime,
        random: Random,
        run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Create the service; it has no host names yet.

        Args:
            authority: Issues the certificates.
            storage: Keeps the certificates.
            certificate_obtained: Called with stored certificates and with new ones.
            clock: Schedules attempts.
            random: Source of jitter.
            run_in_thread: Calls a function in a thread; see `DaemonThreads`.
            now: Returns the POSIX time.
        """
        self._authority = authority
        self._storage = storage
        self._certificate_obtained = certificate_obtained
        self._clock = clock
        self._random = random
        self._run_in_thread = run_in_thread
        self._now = now
        self._names: tuple[str, ...] = ()
        self._challenge_types: tuple[str, ...] = (TLS_ALPN_01,)
        self._managed: dict[str, _Managed] = {}
        # Names that are due, in order, and the running calls by name.
        self._queue: list[_Managed] = []
        self._jobs: dict[str, _Job] = {}

    def apply(self, names: Iterable[str], challenge_types: tuple[str, ...]) -> None:
        """
        Replace the host names; names that stay keep their certificate and their timers.

        Args:
            names: The host names, in lower case.
            challenge_types: The types of challenges that the listeners serve, the preferred one
                first: `HTTP_01` if there is a plain HTTP listener, and `TLS_ALPN_01`.

        Raises:
            ValueError: No type of challenge is given.
        """
        if not challenge_types:
            raise ValueError("no challenge types")
        self._names = tuple(dict.fromkeys(names))
        self._challenge_types = challenge_types
        if self.running:
            self._update()

    def startService(self) -> None:
        super().startService()
        self._update()

    def stopService(self) -> None:
        super().stopService()
        for managed in list(self._managed.values()):
            self._remove(managed)

    def _update(self) -> None:
        """Remove and add names until they are the configured ones."""
        for managed in list(self._managed.values()):
            if managed.name not in self._names:
                self._remove(managed)
        for name in self._names:
            if name not in self._managed:
                self._add(name)

    def _add(self, name: str) -> None:
        managed = self._managed[name] = _Managed(name)
        # Two small files, as at every load of the configuration.
        stored = self._storage.load(name)
        if stored is None:
            self._enqueue(managed)
        else:
            self._use(managed, stored, 0.0)

    def _remove(self, managed: _Managed) -> None:
        del self._managed[managed.name]
        if managed in self._queue:
            self._queue.remove(managed)
        if managed.timer is not None:
            managed.timer.cancel()
            managed.timer = None
        job = self._jobs.get(managed.name)
        if job is not None:
            job.cancelled.set()

    def _use(self, managed: _Managed, certificate: Certificate, min_delay: float) -> None:
        """Serve a certificate, and schedule its renewal."""
        managed.certificate = certificate
        lifetime = certificate.not_after - certificate.not_before
        share = RENEWAL_FRACTION + MAX_RENEWAL_JITTER * self._random.random()
        managed.renew_at = certificate.not_before + share * lifetime
        self._schedule_renewal(managed, min_delay)
        try:
            self._certificate_obtained(managed.name, certificate.chain, certificate.key)
        except Exception:
            self._log.failure("certificate of {name} not applied", name=managed.name)

    def _schedule_renewal(self, managed: _Managed, min_delay: float) -> None:
        """Schedule the renewal, or the next request for renewal information before it."""
        delay = min(managed.renew_at - self._now(), self._jittered(RENEWAL_INFO_INTERVAL))
        self._schedule(managed, max(min_delay, delay))

    def _schedule(self, managed: _Managed, delay: float) -> None:
        managed.timer = self._clock.callLater(delay, self._timer_fired, managed)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + BACKOFF_JITTER * (2 * self._random.random() - 1))

    def _timer_fired(self, managed: _Managed) -> None:
        managed.timer = None
        self._enqueue(managed)

    def _enqueue(self, managed: _Managed) -> None:
        self._queue.append(managed)
        self._start_jobs()

    def _start_jobs(self) -> None:
        """Start queued calls, unless a call of the same name, cancelled before, still runs."""
        for managed in list(self._queue):
            if len(self._jobs) >= MAX_JOBS:
                return
            if managed in self._queue and managed.name not in self._jobs:
                self._queue.remove(managed)
                self._start_job(managed)

    def _start_job(self, managed: _Managed) -> None:
        certificate = managed.certificate
        call: Callable[[], object]
        if certificate is None or self._now() >= managed.renew_at:
            job = _Job(managed, self._obtained, self._failed)
            challenge_type = self._next_challenge_type(managed)
            call = partial(self._order, managed.name, certificate, challenge_type, job.cancelled)
        else:
            job = _Job(managed, self._renewal_time_received, self._renewal_time_failed)
            call = partial(self._authority.renewal_time, certificate, job.cancelled)
        self._jobs[managed.name] = job
        finished = maybeDeferred(self._run_in_thread, call)
        finished.addBoth(self._job_ended, job)
        finished.addErrback(
            lambda failure: self._log.failure(
                "result of the ACME server for {name} not processed", failure, name=managed.name
            )
        )

    def _job_ended(self, result: object, job: _Job) -> None:
        del self._jobs[job.managed.name]
        if job.cancelled.is_set():
            self._log.debug(
                "result of the ACME server for {name} ignored: cancelled", name=job.managed.name
            )
        elif isinstance(result, Failure):
            job.failed(job.managed, result)
        else:
            job.succeeded(job.managed, result)
        self._start_jobs()

    def _next_challenge_type(self, managed: _Managed) -> str:
        return self._challenge_types[managed.attempt % len(self._challenge_types)]

    def _order(
        self, name: str, old: Certificate | None, challenge_type: str, cancelled: threading.Event
    ) -> Certificate:
        """Obtain and store a certificate. Runs in a thread."""
        stored = self._storage.load(name)
        # Stored by another process with the same storage, or by an order that was cancelled.
        if stored is not None and stored.not_after > (old.not_after if old else self._now()):
            return stored
        certificate = self._authority.obtain(name, challenge_type, cancelled)
        try:
            self._storage.save(name, certificate)
        except OSError as error:
            # The certificate can be served until the next start.
            self._log.error(
                "certificate of {name} not stored: {reason}", name=name, reason=str(error)
            )
        return certificate

    def _obtained(self, managed: _Managed, certificate: Certificate) -> None:
        managed.failures = 0
        self._log.info(
            "certificate of {name} obtained; valid until {not_after}",
            name=managed.name,
            not_after=datetime.fromtimestamp(certificate.not_after, timezone.utc).isoformat(),
        )
        self._use(managed, certificate, MIN_RENEWAL_DELAY)

    def _failed(self, managed: _Managed, failure: Failure) -> None:
        """Schedule the next attempt, with the next type of challenge."""
        challenge_type = self._next_challenge_type(managed)
        backoff = min(MIN_BACKOFF * 2.0 ** min(managed.failures, MAX_DOUBLINGS), MAX_BACKOFF)
        delay = self._jittered(backoff)
        managed.failures += 1
        managed.attempt += 1
        self._schedule(managed, delay)
        if failure.check(AcmeError, OSError) is None:
            self._log.failure("order of a certificate of {name} failed", failure, name=managed.name)
        self._log.error(
            "certificate of {name} not obtained by {challenge_type}: {reason}; "
            "next attempt in {seconds:.0f} s",
            name=managed.name,
            challenge_type=challenge_type,
            reason=str(failure.value),
            seconds=delay,
        )

    def _renewal_time_received(self, managed: _Managed, renewal_time: float | None) -> None:
        """Renew at the time that the server suggests, but not later than without it."""
        if renewal_time is not None:
            managed.renew_at = min(managed.renew_at, renewal_time)
        self._schedule_renewal(managed, 0.0)

    def _renewal_time_failed(self, managed: _Managed, failure: Failure) -> None:
        """Schedule the next request: the renewal itself does not depend on it."""
        self._log.warn(
            "renewal information of {name} not received: {reason}",
            name=managed.name,
            reason=str(failure.value),
        )
        self._schedule_renewal(managed, 0.0)
