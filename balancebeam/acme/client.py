"""
The blocking ACME client: orders and renewal information, by the libraries `acme` and `josepy`.

Imported late (see `balancebeam.acme.loading`), because the libraries are optional.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from typing import Any, Callable, TypeVar

import requests
from acme import challenges, crypto_util, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy import errors as jose_errors
from josepy.b64 import b64encode
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from requests.adapters import HTTPAdapter

from balancebeam.acme.certificate import Certificate, read_certificate
from balancebeam.acme.interfaces import (
    AcmeError,
    Cancellation,
    Challenge,
    ChallengePublisher,
)
from balancebeam.acme.storage import Storage
from balancebeam.core.settings import AcmeSettings

# Seconds. Let's Encrypt needs up to about ten for the response to a finalization.
CONNECT_TIMEOUT = 10.0
RESPONSE_TIMEOUT = 30.0

# Seconds for all of an order. Validation from several places takes seconds, and some servers
# issue only after minutes.
ORDER_TIMEOUT = 300.0

# Seconds between two polls: the first, and the longest; each is twice the previous one.
MIN_POLL_INTERVAL = 0.25
MAX_POLL_INTERVAL = 5.0

# Attempts for a request that is rejected with badNonce. The library makes two; of five times two
# attempts at a server that rejects every fifth nonce, all fail once in ten million requests.
NONCE_ATTEMPTS = 5

T = TypeVar("T")


class AcmeClient:
    """
    Orders certificates from one ACME server.

    Threads may use one client at the same time: each call has a connection and a session of its
    own. The account is registered by the first order, and found by its key later. Registration
    agrees to the terms of service of the ACME server.
    """

    def __init__(
        self,
        settings: AcmeSettings,
        storage: Storage,
        publisher: ChallengePublisher,
        user_agent: str,
    ) -> None:
        """
        Args:
            settings: The account and the server.
            storage: Keeps the account key.
            publisher: Serves the challenges.
            user_agent: Sent with every request (RFC 8555, 6.1).
        """
        self._settings = settings
        self._storage = storage
        self._publisher = publisher
        self._user_agent = user_agent

    def obtain(self, name: str, challenge_type: str, cancelled: Cancellation) -> Certificate:
        """Order a certificate; see `CertificateAuthority`."""
        with self._session(cancelled) as session:
            session.register(self._settings.email)
            private_key = _new_key()
            order = session.client.new_order(crypto_util.make_csr(private_key, [name]))
            for authorization in order.authorizations:
                self._authorize(session, authorization, name, challenge_type)
            chain = session.finalize(order)
            return read_certificate(name, chain, private_key)

    def renewal_time(self, certificate: Certificate, cancelled: Cancellation) -> float | None:
        """Return the time of renewal that the server suggests; see `CertificateAuthority`."""
        with self._session(cancelled) as session:
            time_of_renewal, _ = session.client.renewal_time(certificate.chain)
        return None if time_of_renewal is None else time_of_renewal.timestamp()

    @contextlib.contextmanager
    def _session(self, cancelled: Cancellation) -> Iterator[_Session]:
        """A session with the server; exceptions of the libraries become `AcmeError`."""
        try:
            key_pem = self._storage.account_key(_new_key, _load_key)
            network = _Network(
                _load_key(key_pem), _Adapter(cancelled, self._settings.ca), self._user_agent
            )
            try:
                directory = ClientV2.get_directory(self._settings.directory, network)
                yield _Session(ClientV2(directory, network), network, cancelled)
            finally:
                network.session.close()
        except AcmeError:
            raise
        except messages.Error as error:
            raise AcmeError(f"rejected by the ACME server: {_problem(error)}") from error
        except errors.ARIError as error:
            raise AcmeError(f"{error}: {error.__cause__}") from error
        except (errors.Error, jose_errors.Error) as error:
            raise AcmeError(f"unexpected response of the ACME server: {error!r}") from error
        except requests.RequestException as error:
            raise AcmeError(f"request to the ACME server failed: {_reason(error)}") from error
        except OSError as error:
            raise AcmeError(str(error)) from error
        # What the libraries raise for JSON of another structure, or a chain without certificate.
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise AcmeError(f"unexpected response of the ACME server: {error!r}") from error

    def _authorize(
        self,
        session: _Session,
        authorization: messages.AuthorizationResource,
        name: str,
        challenge_type: str,
    ) -> None:
        """Prove the control of `name`, unless an earlier order has done so."""
        if authorization.body.status == messages.STATUS_VALID:
            return
        offered = {body.to_json()["type"]: body for body in authorization.body.challenges}
        body = offered.get(challenge_type)
        if body is None:
            raise AcmeError(
                f"the ACME server offers no {challenge_type} challenge for {name}, "
                f"only {', '.join(sorted(offered)) or 'none at all'}"
            )
        challenge = session.challenge(name, challenge_type, body)
        self._publisher.publish(challenge)
        try:
            session.validate(authorization, body, challenge)
        finally:
            self._publisher.withdraw(challenge)


class _Session:
    """The requests of one order."""

    def __init__(self, client: ClientV2, network: _Network, cancelled: Cancellation) -> None:
        self.client = client
        self._network = network
        self._cancelled = cancelled

    def register(self, email: str | None) -> None:
        """Register the account of the key, or find it if it exists."""
        if self.client.external_account_required():
            raise AcmeError("the ACME server requires external accounts, which are not supported")
        registration = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
        try:
            self.client.new_account(registration)
        except errors.ConflictError as error:
            self._network.account = messages.RegistrationResource(
                body=messages.Registration(), uri=error.location
            )

    def challenge(self, name: str, challenge_type: str, body: messages.ChallengeBody) -> Challenge:
        """Return the challenge with its key authorization (RFC 8555, 8.1)."""
        # Not by the library's classes of challenges: since version 5 there is none for tls-alpn-01.
        token = body.to_json()["token"]
        # RFC 8555, 8.3: a token has characters of the base64url alphabet only.
        if not isinstance(token, str) or not token.replace("-", "").replace("_", "").isalnum():
            raise AcmeError(f"invalid token of a challenge: {token!r}")
        assert self._network.key is not None
        thumbprint = b64encode(self._network.key.thumbprint()).decode("ascii")
        return Challenge(challenge_type, name, token, f"{token}.{thumbprint}")

    def validate(
        self,
        authorization: messages.AuthorizationResource,
        body: messages.ChallengeBody,
        challenge: Challenge,
    ) -> None:
        """Start the validation of a published challenge, and wait for its result."""
        response = challenges.KeyAuthorizationChallengeResponse(
            key_authorization=challenge.key_authorization
        )
        self.client.answer_challenge(body, response)
        result = self._poll(
            lambda: self.client.poll(authorization)[0].body,
            lambda current: current.status != messages.STATUS_PENDING,
        )
        if result.status != messages.STATUS_VALID:
            problems = [_problem(each.error) for each in result.challenges if each.error]
            raise AcmeError(
                f"validation of {challenge.name} by {challenge.type} failed: "
                f"{'; '.join(problems) or result.status.name}"
            )

    def finalize(self, order: messages.OrderResource) -> bytes:
        """Send the certificate request, and return the issued chain in PEM."""
        # RFC 8555, 7.1.6: the order becomes ready after its last authorization is valid.
        self._poll(
            lambda: self._get_order(order), lambda body: body.status != messages.STATUS_PENDING
        )
        self.client.begin_finalization(order)
        body = self._poll(
            lambda: self._get_order(order), lambda body: body.status != messages.STATUS_PROCESSING
        )
        if body.status != messages.STATUS_VALID or body.certificate is None:
            reason = body.error and _problem(body.error)
            raise AcmeError(f"no certificate issued: {reason or body.status.name}")
        chain: str = self._get(body.certificate).text
        return chain.encode("ascii")

    def _get_order(self, order: messages.OrderResource) -> messages.Order:
        body: messages.Order = messages.Order.from_json(self._get(order.uri).json())
        return body

    def _get(self, url: str) -> requests.Response:
        """Fetch a resource by POST-as-GET (RFC 8555, 6.3)."""
        nonce_url = self.client.directory["newNonce"]
        return self._network.post(url, None, new_nonce_url=nonce_url)

    def _poll(self, fetch: Callable[[], T], finished: Callable[[T], bool]) -> T:
        """Fetch a resource until it has its final state; the adapter limits the time."""
        interval = MIN_POLL_INTERVAL
        while True:
            current = fetch()
            if finished(current):
                return current
            self._cancelled.wait(interval)
            interval = min(2 * interval, MAX_POLL_INTERVAL)


class _Network(ClientNetwork):
    """The library's HTTP client with more attempts after badNonce."""

    def __init__(self, key: JWK, adapter: _Adapter, user_agent: str) -> None:
        super().__init__(key, alg=ES256, user_agent=user_agent)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        # RFC 8555, 6.5: "the client SHOULD retry the request using the new nonce".
        for _ in range(NONCE_ATTEMPTS - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


class _Adapter(HTTPAdapter):
    """Sends the requests of an order, with timeouts, until it is cancelled or takes too long."""

    def __init__(self, cancelled: Cancellation, ca: str | None) -> None:
        """
        Args:
            cancelled: Stops the order before its next request.
            ca: file with CA certificates; `None` for the ones of the system.
        """
        super().__init__()
        self._cancelled = cancelled
        self._ca = ca or system_ca() or True
        self._deadline = time.monotonic() + ORDER_TIMEOUT

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        if self._cancelled.is_set():
            raise AcmeError("cancelled")
        if time.monotonic() > self._deadline:
            raise AcmeError(f"the order is not finished after {ORDER_TIMEOUT:.0f} s")
        # RFC 8555, 6.1: "Use of HTTPS is REQUIRED." URLs are sent by the server.
        if not (request.url or "").startswith("https://"):
            raise AcmeError(f"invalid URL {request.url!r}: expected https")
        kwargs["timeout"] = (CONNECT_TIMEOUT, RESPONSE_TIMEOUT)
        kwargs["verify"] = self._ca
        return super().send(request, *args, **kwargs)


def system_ca() -> str | None:
    """
    Return the file or directory with the CA certificates of the system, as OpenSSL finds them.

    `None` if it has none: `requests` then uses certificates of its own.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is not None and os.listdir(paths.capath):
        return paths.capath
    return paths.cafile


def _new_key() -> bytes:
    """Return a new ECDSA P-256 key in PEM, for accounts (ES256) and certificates."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load_key(content: bytes) -> JWK:
    """Return an account key. Raises `ValueError`."""
    try:
        key = serialization.load_pem_private_key(content, None)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError("not an ECDSA P-256 key")
    return JWKEC(key=key)


def _problem(error: messages.Error) -> str:
    """Return the problem document of the server in one line, with the problems of names."""
    parts = [error, *(error.subproblems or ())]
    return "; ".join(f"{part.detail or 'no detail'} ({part.typ})" for part in parts)


def _reason(error: requests.RequestException) -> str:
    """Return the innermost reason of a failed request, without the layers of the libraries."""
    cause: object = error.args[0] if error.args else error
    reason = getattr(cause, "reason", None) or cause
    url = getattr(error.request, "url", None)
    return f"{url}: {reason}"
