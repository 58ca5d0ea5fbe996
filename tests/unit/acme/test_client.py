"""The ACME client without a server: trusted certificates, and servers that cannot be reached."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.acme.challenges import Challenges
from balancebeam.acme.client import AcmeClient, system_ca
from balancebeam.acme.interfaces import HTTP_01, AcmeError
from balancebeam.acme.storage import Storage
from balancebeam.core.settings import AcmeSettings
from tests.helpers.files import temporary_directory
from tests.helpers.processes import free_port


class SystemCaTests(SynchronousTestCase):
    """CA certificates of the system, where OpenSSL looks for them."""

    def system_ca(self, file: Path, directory: Path) -> str | None:
        """Return the result with these default paths."""
        paths = {"SSL_CERT_FILE": str(file), "SSL_CERT_DIR": str(directory)}
        with patch.dict(os.environ, paths):
            return system_ca()

    def test_locations(self) -> None:
        """The file is preferred to the directory; an empty directory counts as none."""
        folder = temporary_directory(self)
        file, directory = folder / "file", folder / "directory"
        self.assertIsNone(self.system_ca(file, directory))
        directory.mkdir()
        self.assertIsNone(self.system_ca(file, directory))
        (directory / "1.pem").touch()
        self.assertEqual(self.system_ca(file, directory), str(directory))
        file.touch()
        self.assertEqual(self.system_ca(file, directory), str(file))


class ReachabilityTests(SynchronousTestCase):
    """Orders that end before the first response."""

    def order(self, url: str) -> str:
        """Order a certificate, and return the error."""
        settings = AcmeSettings(str(temporary_directory(self)), url)
        storage = Storage(settings.storage, "https://acme.example.org/directory")
        client = AcmeClient(settings, storage, Challenges(), "balancebeam/0")
        return str(self.assertRaises(AcmeError, client.obtain, "a", HTTP_01, threading.Event()))

    def test_server_is_down(self) -> None:
        """A server that refuses connections is named, with the reason."""
        url = f"https://127.0.0.1:{free_port()}/dir"
        reason = self.order(url)
        self.assertIn(f"request to the ACME server failed: {url}: ", reason)
        self.assertIn("Connection refused", reason)

    def test_plain_http_is_refused(self) -> None:
        """No request is sent without TLS, wherever its URL comes from."""
        self.assertEqual(
            self.order("http://127.0.0.1/dir"),
            "invalid URL 'http://127.0.0.1/dir': expected https",
        )

    def test_storage_cannot_be_written(self) -> None:
        """A storage that is no directory fails the order before the first request."""
        path = temporary_directory(self) / "file"
        path.touch()
        settings = AcmeSettings(str(path), "https://127.0.0.1:1/dir")
        storage = Storage(settings.storage, settings.directory)
        client = AcmeClient(settings, storage, Challenges(), "balancebeam/0")
        error = self.assertRaises(AcmeError, client.obtain, "a", HTTP_01, threading.Event())
        self.assertIn(str(path), str(error))
