"""Certificates from the ACME test server "pebble", with real validation requests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from attrs import frozen
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from balancebeam.acme.certificate import Certificate
from balancebeam.acme.challenges import Challenges
from balancebeam.acme.interfaces import (
    HTTP_01,
    TLS_ALPN_01,
    AcmeError,
    CertificateAuthority,
    Challenge,
)
from balancebeam.acme.loading import load_client
from balancebeam.acme.service import AcmeService
from balancebeam.acme.storage import Storage
from balancebeam.core.settings import AcmeSettings
from tests.helpers.acme import (
    DAY,
    DNS_SERVER,
    PEBBLE,
    Pebble,
    issue_certificate,
    run_pebble,
    serve_http_challenges,
    serve_https,
    serve_tls_challenges,
)

needs_pebble = pytest.mark.skipif(
    PEBBLE is None or DNS_SERVER is None,
    reason="the ACME test server is not installed: apt-get install pebble",
)


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """An ACME server that rejects every fifth valid nonce, which clients have to endure."""
    with run_pebble(tmp_path_factory.mktemp("pebble"), rejected_nonces=20) as running:
        yield running


@frozen
class Account:
    """
    A client of an ACME server with all that it uses.

    Attributes:
        client: the client.
        storage: the storage.
        challenges: the challenges of its orders.
    """

    client: CertificateAuthority
    storage: Storage
    challenges: Challenges


def open_account(pebble: Pebble, folder: Path, ca: str | None = None) -> Account:
    """Return a client with a storage in `folder`."""
    challenges = Challenges()
    settings = AcmeSettings(
        str(folder / "acme"), pebble.directory, "a@example.org", ca or pebble.ca
    )
    storage = Storage(settings.storage, settings.directory)
    return Account(
        load_client(settings, storage, challenges, "balancebeam-test"), storage, challenges
    )


def build_client(folder: Path, directory: str, ca: str | None = None) -> CertificateAuthority:
    """Return a client with a storage in `folder`, whose challenges are not served."""
    settings = AcmeSettings(str(folder / "acme"), directory, ca=ca)
    storage = Storage(settings.storage, settings.directory)
    return load_client(settings, storage, Challenges(), "balancebeam-test")


@contextlib.contextmanager
def served(pebble: Pebble, account: Account) -> Iterator[None]:
    """Serve the challenges of `account` on the ports of validation requests."""
    with serve_http_challenges(account.challenges, pebble.http_port):
        with serve_tls_challenges(account.challenges, pebble.tls_port):
            yield


def assert_loads(certificate: Certificate, folder: Path) -> None:
    """Assert that OpenSSL accepts the chain and the key."""
    path = folder / "both.pem"
    path.write_bytes(certificate.chain + certificate.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(path))


@needs_pebble
@pytest.mark.parametrize("challenge_type", [HTTP_01, TLS_ALPN_01])
def test_challenge(pebble: Pebble, tmp_path: Path, challenge_type: str) -> None:
    """A certificate with its chain is obtained by each type of challenge, despite badNonce."""
    account = open_account(pebble, tmp_path)
    name = f"{challenge_type}.example.org"
    with served(pebble, account):
        certificate = account.client.obtain(name, challenge_type, threading.Event())
    assert certificate.not_before <= time.time() < certificate.not_after
    assert certificate.chain.count(b"BEGIN CERTIFICATE") == 2
    assert_loads(certificate, tmp_path)
    assert not account.challenges.tls_contexts
    assert account.client.renewal_time(certificate, threading.Event()) is None


@needs_pebble
def test_service_orders_and_renews(pebble: Pebble, tmp_path: Path) -> None:
    """The service obtains a certificate, and a second one with the same account when it is due."""
    account = open_account(pebble, tmp_path)
    obtained: list[tuple[str, bytes, bytes]] = []
    times = [time.time()]
    clock = Clock()
    service = AcmeService(
        account.client,
        account.storage,
        lambda *certificate: obtained.append(certificate),
        clock,
        random.Random(1),
        execute,
        lambda: times[0],
    )
    service.apply(["renewed.example.org"], (HTTP_01,))
    with served(pebble, account):
        service.startService()
        account_key = Path(account.storage.path, "account.pem")
        first_key = account_key.read_bytes()
        stored = account.storage.load("renewed.example.org")
        assert stored is not None
        times[0] = stored.not_after - DAY
        clock.advance(2 * DAY)
        service.stopService()
    assert [name for name, _, _ in obtained] == ["renewed.example.org"] * 2
    assert obtained[0][1:] != obtained[1][1:]
    assert account_key.read_bytes() == first_key
    renewed = account.storage.load("renewed.example.org")
    assert renewed is not None
    assert (renewed.chain, renewed.key) == obtained[1][1:]
    for folder, _, files in os.walk(tmp_path / "acme"):
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert {os.stat(Path(folder, file)).st_mode & 0o777 for file in files} <= {0o600}


@needs_pebble
def test_validation_fails(pebble: Pebble, tmp_path: Path) -> None:
    """If nothing listens on the port of validation requests, the error has the server's reason."""
    account = open_account(pebble, tmp_path)
    for challenge_type in (HTTP_01, TLS_ALPN_01):
        with pytest.raises(AcmeError, match=rf"by {challenge_type} failed: .*connect"):
            account.client.obtain("closed.example.org", challenge_type, threading.Event())
    assert not account.challenges.tls_contexts


@needs_pebble
def test_invalid_name_is_rejected(pebble: Pebble, tmp_path: Path) -> None:
    """The problem document of a rejected order is the reason of the error."""
    account = open_account(pebble, tmp_path)
    with pytest.raises(
        AcmeError, match=r"rejected by the ACME server: .*(rejectedIdentifier|malformed)"
    ):
        account.client.obtain("a_b..example", HTTP_01, threading.Event())


@needs_pebble
def test_certificate_of_the_server_is_verified(pebble: Pebble, tmp_path: Path) -> None:
    """A server that another CA has signed gets no request."""
    other = tmp_path / "other.pem"
    other.write_bytes(issue_certificate("localhost", not_after=100 * 365 * DAY).chain)
    account = open_account(pebble, tmp_path, str(other))
    with pytest.raises(AcmeError, match=r"request to the ACME server failed: .*certificate verify"):
        account.client.obtain("a.example.org", HTTP_01, threading.Event())


@needs_pebble
def test_cancelled_order_sends_no_more_requests(pebble: Pebble, tmp_path: Path) -> None:
    """An order that is cancelled while it waits for the validation ends at once."""
    account = open_account(pebble, tmp_path)
    cancelled = threading.Event()

    class CancellingPublisher(Challenges):
        """Cancels the order when its challenge is published."""

        def publish(self, challenge: Challenge) -> None:
            """Publish it, and cancel."""
            super().publish(challenge)
            cancelled.set()

    settings = AcmeSettings(str(tmp_path / "acme"), pebble.directory, ca=pebble.ca)
    challenges = CancellingPublisher()
    client = load_client(settings, account.storage, challenges, "balancebeam-test")
    with pytest.raises(AcmeError, match=r"^cancelled$"):
        client.obtain("a.example.org", TLS_ALPN_01, cancelled)
    assert not challenges.tls_contexts


@needs_pebble
def test_server_ends_during_an_order(tmp_path: Path) -> None:
    """An ACME server that ends during an order fails it, and the challenge is withdrawn."""
    with run_pebble(tmp_path) as pebble:
        account = open_account(pebble, tmp_path)

        class StoppingPublisher(Challenges):
            """Stops the server when a challenge is published."""

            def publish(self, challenge: Challenge) -> None:
                """Publish it, and stop the server."""
                super().publish(challenge)
                pebble.stop()

        settings = AcmeSettings(str(tmp_path / "acme"), pebble.directory, ca=pebble.ca)
        challenges = StoppingPublisher()
        client = load_client(settings, account.storage, challenges, "balancebeam-test")
        with pytest.raises(AcmeError, match="request to the ACME server failed"):
            client.obtain("a.example.org", TLS_ALPN_01, threading.Event())
        assert not challenges.tls_contexts


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"newNonce": 5, "newAccount": []}'],
)
def test_invalid_responses(tmp_path: Path, body: bytes) -> None:
    """A server that sends no directory, or a malformed one, fails the order."""
    server, ca = serve_https(tmp_path, lambda root, path: body)
    with server:
        client = build_client(tmp_path, f"https://localhost:{server.port}/dir", ca)
        with pytest.raises(AcmeError, match="ACME server"):
            client.obtain("a.example.org", HTTP_01, threading.Event())


def test_renewal_information(tmp_path: Path) -> None:
    """The suggested time of renewal (RFC 9773, 4.2) is within the window of the server."""
    window = {"start": "2040-01-02T04:00:00Z", "end": "2040-01-03T04:00:00Z"}
    paths: list[str] = []

    def respond(root: str, path: str) -> bytes:
        """Return the directory, or the renewal information."""
        paths.append(path)
        directory = {"renewalInfo": f"{root}/renewal"}
        return json.dumps(directory if path == "/dir" else {"suggestedWindow": window}).encode()

    server, ca = serve_https(tmp_path, respond)
    with server:
        client = build_client(tmp_path, f"https://localhost:{server.port}/dir", ca)
        certificate = issue_certificate("a.example.org", 0.0, 100 * 365 * DAY)
        suggested = client.renewal_time(certificate, threading.Event())
        window["start"] = "tomorrow"
        with pytest.raises(AcmeError):
            client.renewal_time(certificate, threading.Event())
    assert suggested is not None
    start = datetime(2040, 1, 2, 4, tzinfo=timezone.utc).timestamp()
    assert start <= suggested <= start + DAY
    assert paths[1].startswith("/renewal/")


def test_server_without_reply(tmp_path: Path) -> None:
    """A server that closes each connection without a reply fails the order."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/dir"

        def close_connection() -> None:
            """Accept one connection, and close it."""
            connection, _ = listener.accept()
            connection.close()

        thread = threading.Thread(target=close_connection, daemon=True)
        thread.start()
        client = build_client(tmp_path, url)
        with pytest.raises(AcmeError, match="request to the ACME server failed"):
            client.obtain("a.example.org", HTTP_01, threading.Event())
        thread.join()
