"""
The certificate and CA files of frontends: reading, and detection of changes.

All functions block: they are called in a thread while clients are served.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve, frozen

from balancebeam.core.errors import ConfigError
from balancebeam.core.frontend_settings import FrontendSettings
from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.tls.certificates import Certificate, certificate_files, read_certificate
from balancebeam.tls.pem import read_ca_file
from balancebeam.tls.selection import PreparedContexts, prepare_contexts
from balancebeam.tls.self_signed import self_signed_certificate
from balancebeam.tls.signatures import Signatures, file_signatures


@frozen
class FrontendFiles:
    """
    The contents of the files of a frontend.

    Attributes:
        signatures: The state of the files before they were read.
        certificates: The certificates, the default one first.
        client_ca: The CA certificates of clients in PEM; `None` without client certificates.
    """

    signatures: Signatures = ()
    certificates: tuple[Certificate, ...] = ()
    client_ca: bytes | None = None


@frozen
class PreparedFrontend:
    """
    The certificates of a frontend, read and checked, and not active yet.

    Attributes:
        name: The name of the frontend.
        mode: Its mode, "http" or "tcp".
        settings: Its TLS settings.
        files: The contents of its files.
        generated: The certificates that are not from files.
        contexts: The contexts with all these certificates.
    """

    name: str
    mode: str
    settings: FrontendTlsSettings
    files: FrontendFiles
    generated: tuple[Certificate, ...]
    contexts: PreparedContexts


@frozen
class FileChange:
    """
    Files that have changed.

    Attributes:
        name: The name of the frontend.
        seen: The new state of the files.
        prepared: The new certificates; `None` if the files cannot be used.
        problems: The reasons, if so.
    """

    name: str
    seen: Signatures
    prepared: PreparedFrontend | None
    problems: Sequence[str] = ()


def read_files(settings: FrontendTlsSettings) -> FrontendFiles:
    """
    Read and check the files of a frontend.

    Raises:
        ConfigError: For each file that cannot be used, a problem with its path and the reason.
    """
    signatures = frontend_signatures(settings)
    certificates, problems = [], []
    for source in settings.certificates:
        try:
            certificates.append(read_certificate(source))
        except ValueError as error:
            problems.append(str(error))
    client_ca = None
    if settings.client_ca is not None:
        try:
            client_ca = read_ca_file(settings.client_ca)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(*problems)
    return FrontendFiles(signatures, tuple(certificates), client_ca)


def frontend_signatures(settings: FrontendTlsSettings) -> Signatures:
    """Return the state of the files of a frontend; a change of a file changes it."""
    return file_signatures(_paths(settings))


def _paths(settings: FrontendTlsSettings) -> Iterator[str]:
    for source in settings.certificates:
        yield from certificate_files(source)
    if settings.client_ca is not None:
        yield settings.client_ca


def prepare_frontend(
    name: str,
    mode: str,
    settings: FrontendTlsSettings,
    files: FrontendFiles,
    generated: tuple[Certificate, ...],
    present: PreparedContexts | None = None,
) -> PreparedFrontend:
    """Build the contexts of a frontend. Raises `ConfigError`."""
    certificates = (*files.certificates, *generated)
    if not certificates:
        raise ConfigError("no certificate")
    try:
        contexts = prepare_contexts(settings, mode, certificates, files.client_ca, present)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return PreparedFrontend(name, mode, settings, files, generated, contexts)


def check_frontends(frontends: Iterable[FrontendSettings]) -> list[str]:
    """
    Check the files of frontends, and whether OpenSSL accepts their settings.

    Returns:
        The warnings that a start logs: certificates that expire soon, for example.

    Raises:
        ConfigError: For each problem, the frontend and the reason, with the file if it is one.
    """
    problems: list[str] = []
    warnings: list[str] = []
    for frontend in frontends:
        if frontend.tls is None:
            continue
        # A frontend may have certificates from ACME only.
        generated = (self_signed_certificate(time.time()),)
        try:
            files = read_files(frontend.tls)
            prepare_frontend(frontend.name, frontend.mode, frontend.tls, files, generated)
        except ConfigError as error:
            problems += [f"frontend {frontend.name}: {line}" for line in error.problems]
            continue
        for certificate in files.certificates:
            warnings += [
                f"frontend {frontend.name}: {line}" for line in certificate.warnings(time.time())
            ]
    if problems:
        raise ConfigError(*problems)
    return warnings


def read_changed(watched: Sequence[tuple[PreparedFrontend, Signatures]]) -> list[FileChange]:
    """
    Read the files of frontends that have changed. Runs in a thread.

    Args:
        watched: What is active in each frontend, and the state of its files when they were last
            read.
    """
    changes = []
    for active, seen in watched:
        signatures = frontend_signatures(active.settings)
        if signatures == seen:
            continue
        try:
            files = evolve(read_files(active.settings), signatures=signatures)
            prepared = prepare_frontend(
                active.name,
                active.mode,
                active.settings,
                files,
                active.generated,
                active.contexts,
            )
        except ConfigError as error:
            changes.append(FileChange(active.name, signatures, None, error.problems))
        else:
            changes.append(FileChange(active.name, signatures, prepared))
    return changes
