"""A balancer that obtains its certificates from the ACME test server "pebble"."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import ssl
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from tests.helpers.acme import DNS_SERVER, PEBBLE, Pebble, run_pebble
from tests.helpers.configured_balancer import (
    ConfiguredBalancer,
    config,
    run_configured_balancer,
)
from tests.helpers.http_client import GET, GET_CLOSE, connect, get
from tests.helpers.processes import (
    BALANCEBEAM,
    TWISTD,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    wait_until,
)

NAME = "www.example.org"

needs_pebble = pytest.mark.skipif(
    PEBBLE is None or DNS_SERVER is None,
    reason="the ACME test server is not installed: apt-get install pebble",
)


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """An ACME server."""
    with run_pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


def secure_connection(port: int, name: str = NAME) -> ssl.SSLSocket:
    """Open a TLS connection that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connect(port), server_hostname=name)


def issuer(port: int, name: str = NAME) -> str:
    """Send a request by TLS, and return the issuer of the certificate: "" if self-signed."""
    with secure_connection(port, name) as client:
        client.sendall(GET_CLOSE)
        assert read_all(client).endswith(b"one")
        der = client.getpeercert(True)
    assert der is not None
    certificate = x509.load_der_x509_certificate(der)
    if certificate.issuer == certificate.subject:
        return ""
    return certificate.issuer.rfc4514_string()


def accepts_tls(balancer: ConfiguredBalancer, port: int) -> bool:
    """Return whether a request by TLS is answered; fails if the process has exited."""
    assert balancer.status() is None, balancer.log.read_text()
    with contextlib.suppress(OSError):
        issuer(port)
        return True
    return False


def acme_config(
    server: ScriptedServer, port: int, account: str, names: tuple[str, ...] = (NAME,)
) -> str:
    """Return a configuration file with a TLS frontend whose certificates are from ACME."""
    bind = f"127.0.0.1:{port}"
    text = config(server.address, bind, before=f"[acme]\n{account}\n")
    return text.replace("[[pool]]", f"[frontend.tls]\nacme = {list(names)}\n[[pool]]")


def account_of(pebble: Pebble, storage: Path) -> str:
    """Return the keys of `[acme]` for an account of `pebble`."""
    return f'directory = "{pebble.directory}"\nca = "{pebble.ca}"\nstorage = "{storage}"'


@needs_pebble
def test_http_challenge(tmp_path: Path, pebble: Pebble, server_one: ScriptedServer) -> None:
    """
    A certificate by http-01 through --redirect-https replaces the self-signed one, and is
    served at once by the next start, without the ACME server.
    """
    port = free_port()
    text = acme_config(server_one, port, account_of(pebble, tmp_path / "acme"))
    argv = (BALANCEBEAM, "--redirect-https", f"127.0.0.1:{pebble.http_port}")
    pebble.pause()
    try:
        with run_configured_balancer(tmp_path, text, argv=argv) as balancer:
            wait_until(partial(accepts_tls, balancer, port))
            assert issuer(port) == ""
            with secure_connection(port) as established:
                pebble.resume()
                wait_until(lambda: "Pebble" in issuer(port))
                assert balancer.has_logged(f"certificate of {NAME} obtained")
                established.sendall(GET)
                read_head(established)
            assert b" 308 " in get(pebble.http_port)
            balancer.send(signal.SIGTERM)
            assert balancer.wait() == 0
        pebble.pause()
        with run_configured_balancer(tmp_path, text, argv=argv) as balancer:
            wait_until(partial(accepts_tls, balancer, port))
            assert "Pebble" in issuer(port)
    finally:
        pebble.resume()


@needs_pebble
def test_tls_challenge(tmp_path: Path, pebble: Pebble, server_one: ScriptedServer) -> None:
    """
    A certificate by tls-alpn-01 through the TLS listener, whose order is interrupted by reloads
    that change the account and the names, and by a hot restart.
    """
    port = pebble.tls_port
    account = account_of(pebble, tmp_path / "acme")
    pebble.pause()
    try:
        text = acme_config(server_one, port, account)
        with run_configured_balancer(tmp_path, text, argv=(BALANCEBEAM,)) as balancer:
            wait_until(partial(accepts_tls, balancer, port))
            account += '\nemail = "ops@example.org"'
            for number, names in enumerate(((NAME,), ("api.example.org",), (NAME,)), 1):
                balancer.config.write_text(acme_config(server_one, port, account, names))
                balancer.send(signal.SIGHUP)
                wait_until(partial(balancer.has_logged, "reloaded: ", number))
                assert issuer(port) == ""
            balancer.send(signal.SIGUSR2)
            assert balancer.wait() == 0
            pebble.resume()
            wait_until(lambda: "Pebble" in issuer(port))
            log = balancer.log.read_text()
            assert log.count("certificate of") == log.count(f"certificate of {NAME} obtained") == 1
    finally:
        pebble.resume()


def test_no_acme_server(tmp_path: Path, server_one: ScriptedServer) -> None:
    """Without the ACME server, requests are served with a self-signed certificate."""
    port = free_port()
    account = f'directory = "https://127.0.0.1:{free_port()}/dir"\nstorage = "{tmp_path}/acme"'
    text = acme_config(server_one, port, account)
    with run_configured_balancer(tmp_path, text, argv=(BALANCEBEAM,)) as balancer:
        wait_until(partial(accepts_tls, balancer, port))
        wait_until(partial(balancer.has_logged, "Connection refused; next attempt in"))
        assert issuer(port) == ""
        balancer.send(signal.SIGTERM)
        assert balancer.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_storage_of_another_user(server_one: ScriptedServer) -> None:
    """With --uid, a storage that the user cannot write is an error in the log only."""
    user = next(entry for entry in pwd.getpwall() if entry.pw_uid)
    port = free_port()
    # The folders of pytest are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        account = f'directory = "https://127.0.0.1:{free_port()}/dir"\nstorage = "{folder}/acme"'
        argv = (TWISTD, "-n", "--pidfile=", f"--uid={user.pw_uid}", "balancebeam")
        text = acme_config(server_one, port, account)
        with run_configured_balancer(folder, text, argv=argv) as balancer:
            wait_until(partial(accepts_tls, balancer, port))
            reason = f"{folder}/acme: permission denied; next attempt in"
            wait_until(partial(balancer.has_logged, reason))
            assert issuer(port) == ""
