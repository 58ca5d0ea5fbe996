"""Errors at start: libraries that are not installed, and invalid CA certificates."""

from __future__ import annotations

import subprocess
import sys
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.acme.challenges import Challenges
from balancebeam.acme.loading import load_client
from balancebeam.acme.storage import Storage
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import AcmeSettings
from tests.helpers.files import temporary_directory

URL = "https://acme.example.org/directory"


class LoadingTests(SynchronousTestCase):
    """The late import of the client."""

    def load(self, ca: str | None = None) -> None:
        """Load the client."""
        settings = AcmeSettings("/nonexistent", URL, ca=ca)
        load_client(settings, Storage(settings.storage, URL), Challenges(), "balancebeam/0")

    def test_missing_library(self) -> None:
        """Without the extra, the error has the command that installs it."""
        for library in ("acme", "josepy"):
            modules = {name: None for name in sys.modules if name.split(".")[0] == library}
            modules[library] = None
            with patch.dict(sys.modules, modules):
                sys.modules.pop("balancebeam.acme.client", None)
                error = self.assertRaises(ConfigError, self.load)
            self.assertIn("pip install 'balancebeam[acme]'", str(error))

    def test_service_needs_no_library(self) -> None:
        """The service is imported without the extra, and without `cryptography`."""
        program = (
            "import sys\n"
            "sys.modules.update(dict.fromkeys(('acme', 'josepy', 'requests')))\n"
            "import balancebeam.acme.service, balancebeam.acme.threads\n"
            "import balancebeam.acme.challenges\n"
            "sys.exit('cryptography' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
        self.assertEqual(done.returncode, 0)

    def test_invalid_ca(self) -> None:
        """A CA file that is missing or has no certificate is an error that names it."""
        path = temporary_directory(self) / "ca.pem"
        error = self.assertRaises(ConfigError, self.load, str(path))
        self.assertIn(str(path), str(error))
        path.write_text("no certificate")
        self.assertRaises(ConfigError, self.load, str(path))

    def test_client_is_loaded(self) -> None:
        """With the extra, the client is loaded without a connection or a file."""
        self.load()
