"""Selection of the TLS context of a client by server name and ALPN, and its replacement."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from balancebeam.core.tls_settings import FrontendTlsSettings
from balancebeam.protocols.client_hello import ClientHello
from balancebeam.protocols.tls_records import (
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    AlertError,
)
from balancebeam.tls.certificates import Certificate
from balancebeam.tls.contexts import ContextOptions, build_context, load_certificates

# RFC 8737, 3: the client offers this protocol and no other.
_ACME_TLS = (b"acme-tls/1",)

_WILDCARD = "*."


@frozen
class NamedContext:
    """
    A context, and what it was built from.

    Attributes:
        options: All options but the certificates.
        names: The server names that it is for, wildcards included; empty for the default
            context if its certificate has no DNS names.
        certificates: Its certificates, one for each type of key.
        context: The context.
    """

    options: ContextOptions
    names: tuple[str, ...]
    certificates: tuple[Certificate, ...]
    context: ssl.SSLContext

    @property
    def identity(self) -> object:
        """
        What must be equal for two contexts to share session ticket keys.

        Certificates are not part of it, so that sessions survive their renewal. The content of
        the client CA file is: otherwise a client could resume a session without a certificate
        of the new CA.
        """
        key_types = frozenset(certificate.key_type for certificate in self.certificates)
        return self.options, frozenset(self.names), key_types


@frozen
class PreparedContexts:
    """
    The contexts of a frontend, built and not active yet.

    Attributes:
        certificates: All certificates, the default one first.
        contexts: The contexts, the default one first; no name is in two of them.
        strict_sni: Whether clients without a known server name are rejected.
    """

    certificates: tuple[Certificate, ...]
    contexts: tuple[NamedContext, ...]
    strict_sni: bool


def prepare_contexts(
    settings: FrontendTlsSettings,
    mode: str,
    certificates: Sequence[Certificate],
    client_ca: bytes | None = None,
    present: PreparedContexts | None = None,
) -> PreparedContexts:
    """
    Build the contexts of a frontend.

    Args:
        settings: The settings of the frontend.
        mode: The mode of the frontend, "http" or "tcp".
        certificates: The certificates, the default one first; at least one.
        client_ca: The content of `settings.client_ca`.
        present: The contexts in use, of which equal ones are not built again.

    Raises:
        ValueError: OpenSSL rejects a certificate or an option.
    """
    if settings.client_ca is not None and client_ca is None:
        # Otherwise clients without a certificate would be accepted.
        raise ValueError(f"{settings.client_ca}: not read")
    options = ContextOptions.from_settings(settings, mode, client_ca)
    built = {
        (named.options, named.names, named.certificates): named.context
        for named in (() if present is None else present.contexts)
    }
    contexts = []
    for group, names in _group_certificates(certificates):
        context = built.get((options, names, group))
        if context is None:
            context = build_context(options, group)
        contexts.append(NamedContext(options, names, group, context))
    return PreparedContexts(tuple(certificates), tuple(contexts), settings.strict_sni)


def _group_certificates(
    certificates: Sequence[Certificate],
) -> list[tuple[tuple[Certificate, ...], tuple[str, ...]]]:
    """
    Return groups of certificates that are used together, and the names of each.

    Certificates of a group have different types of keys. The first group has the first
    certificate, and has no names if that has none.
    """
    by_name: dict[str, dict[str, Certificate]] = {}
    for certificate in certificates:
        for name in certificate.names:
            by_name.setdefault(name, {}).setdefault(certificate.key_type, certificate)
    names_of_group: dict[tuple[int, ...], list[str]] = {}
    groups: dict[tuple[int, ...], tuple[Certificate, ...]] = {}
    if not certificates[0].names:
        default = (id(certificates[0]),)
        names_of_group[default], groups[default] = [], (certificates[0],)
    for name, by_type in by_name.items():
        # Hashing contents would take longer than the comparison of identities.
        key = tuple(map(id, by_type.values()))
        names_of_group.setdefault(key, []).append(name)
        groups[key] = tuple(by_type.values())
    return [(groups[key], tuple(names)) for key, names in names_of_group.items()]


class FrontendContexts:
    """
    The TLS contexts of a frontend: the `ContextSelector` of its connections.

    Attributes:
        challenges: The contexts of tls-alpn-01 challenges (RFC 8737) in progress, by server name.
        active: The contexts in use.
    """

    def __init__(
        self, prepared: PreparedContexts, challenges: Mapping[str, ssl.SSLContext] | None = None
    ) -> None:
        """
        Use `prepared`.

        Args:
            prepared: The contexts, see `prepare_contexts`.
            challenges: See `challenges`; it changes while challenges are in progress.
        """
        self.challenges: Mapping[str, ssl.SSLContext] = {} if challenges is None else challenges
        self._activate(prepared)

    def _activate(self, active: PreparedContexts) -> None:
        self.active = active
        self._strict_sni = active.strict_sni
        self._default = active.contexts[0].context
        self._alpn = frozenset(name.encode("ascii") for name in active.contexts[0].options.alpn)
        self._by_name: dict[str | None, ssl.SSLContext] = {}
        # By the part after the wildcard label.
        self._by_parent: dict[str, ssl.SSLContext] = {}
        for named in active.contexts:
            for name in named.names:
                if name.startswith(_WILDCARD):
                    self._by_parent[name[len(_WILDCARD) :]] = named.context
                else:
                    self._by_name[name] = named.context

    def select(self, hello: ClientHello) -> ssl.SSLContext:
        """
        Return the context for a client, see `ContextSelector.select`.

        The exact name is preferred to a wildcard, which stands for one label (RFC 9525, 6.3).
        """
        name = hello.server_name
        if hello.alpn:
            if hello.alpn == _ACME_TLS:
                return self._select_challenge(name)
            if self._alpn and self._alpn.isdisjoint(hello.alpn):
                # RFC 7301, 3.2: "the server SHALL respond with a fatal
                # 'no_application_protocol' alert."
                raise AlertError(
                    NO_APPLICATION_PROTOCOL, "alpn", "no application protocol in common"
                )
        context = self._by_name.get(name)
        if context is None and name is not None:
            context = self._by_parent.get(name.partition(".")[2])
        if context is None:
            if self._strict_sni:
                raise AlertError(UNRECOGNIZED_NAME, "sni", "no certificate for the server name")
            context = self._default
        return context

    def _select_challenge(self, name: str | None) -> ssl.SSLContext:
        context = None if name is None else self.challenges.get(name)
        if context is None:
            raise AlertError(
                NO_APPLICATION_PROTOCOL, "alpn", "no tls-alpn-01 challenge for the server name"
            )
        return context

    def commit(self, prepared: PreparedContexts) -> list[str]:
        """
        Use `prepared` for new handshakes.

        A context that differs from the present one in its certificates only is replaced by the
        present one with these certificates, so that sessions are still resumed: the keys of
        session tickets belong to a context, and cannot be set.

        Returns:
            Warnings; what they concern has a new context.
        """
        present: Mapping[object, NamedContext] = {
            named.identity: named for named in self.active.contexts
        }
        warnings: list[str] = []
        contexts = tuple(
            _reuse_context(present[named.identity], named, warnings)
            if named.identity in present
            else named
            for named in prepared.contexts
        )
        self._activate(evolve(prepared, contexts=contexts))
        return warnings


def _reuse_context(
    present: NamedContext, prepared: NamedContext, warnings: list[str]
) -> NamedContext:
    """
    Return `prepared` with the context of `present` if possible.

    The certificates have been loaded into a context before: a context in which loading has
    failed rejects all clients, and handshakes that use it already have copies.
    """
    if present.certificates != prepared.certificates:
        try:
            load_certificates(present.context, prepared.certificates)
        except ValueError as error:
            warnings.append(f"{error}; session tickets become invalid")
            return prepared
    return evolve(prepared, context=present.context)
