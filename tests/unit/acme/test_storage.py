"""Stored certificates and account keys: permissions, damaged files, atomic writes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.acme.storage import MAX_FILE_SIZE, Storage
from balancebeam.core.errors import ConfigError
from tests.helpers.acme import issue_certificate
from tests.helpers.files import temporary_directory

URL = "https://acme.example.org/directory"


class StorageTestCase(SynchronousTestCase):
    """A storage in a directory of the test."""

    def setUp(self) -> None:
        self.root = temporary_directory(self) / "new" / "acme"
        self.storage = Storage(str(self.root), URL)

    def paths(self, name: str) -> tuple[Path, Path]:
        """Return the files of the chain and the key of `name`."""
        directory = Path(self.storage.directory(name))
        return directory / "fullchain.pem", directory / "privkey.pem"


class CertificateTests(StorageTestCase):
    """Certificates."""

    def test_stored_certificate_is_loaded(self) -> None:
        """A certificate is loaded as it was stored, and replaced by a newer one."""
        for _ in range(2):
            certificate = issue_certificate("a.example.org")
            self.storage.save("a.example.org", certificate)
            self.assertEqual(self.storage.load("a.example.org"), certificate)

    def test_permissions(self) -> None:
        """Directories have mode 0700 and files 0600, whatever the umask is; no others are left."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        self.storage.save("a.example.org", issue_certificate("a.example.org"))
        self.storage.account_key(lambda: b"key", len)
        files = []
        for folder, _, names in os.walk(self.root):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700, folder)
            for name in names:
                files.append(name)
                self.assertEqual(os.stat(Path(folder, name)).st_mode & 0o777, 0o600, name)
        self.assertEqual(sorted(files), ["account.pem", "fullchain.pem", "privkey.pem"])

    def test_missing_certificate(self) -> None:
        """A name without files has no certificate, and nothing is logged."""
        with capturedLogs() as logs:
            self.assertIsNone(self.storage.load("a.example.org"))
        self.assertEqual(logs, [])

    def test_damaged_files(self) -> None:
        """Files with other content are logged with the reason, and ignored."""
        certificate = issue_certificate("a.example.org")
        other = issue_certificate("b.example.org")
        half = certificate.chain[:200]
        cases = (
            (b"", certificate.key),
            (half, certificate.key),
            (certificate.chain, b""),
            (certificate.chain, b"\xff" * 100),
            (certificate.chain, other.key),
            (other.chain, other.key),
            (b"x" * (MAX_FILE_SIZE + 1), certificate.key),
        )
        self.storage.save("a.example.org", certificate)
        for contents in cases:
            for path, content in zip(self.paths("a.example.org"), contents):
                path.write_bytes(content)
            with capturedLogs() as logs:
                self.assertIsNone(self.storage.load("a.example.org"))
            (event,) = logs
            self.assertEqual(event["name"], "a.example.org")
            self.assertTrue(event["reason"])
        self.storage.save("a.example.org", certificate)
        self.assertEqual(self.storage.load("a.example.org"), certificate)

    def test_files_that_are_no_regular_files(self) -> None:
        """A directory or a pipe in place of a file is ignored, and does not block."""
        self.storage.save("a.example.org", issue_certificate("a.example.org"))
        chain, _ = self.paths("a.example.org")
        chain.unlink()
        os.mkfifo(chain)
        with capturedLogs() as logs:
            self.assertIsNone(self.storage.load("a.example.org"))
        chain.unlink()
        chain.mkdir()
        with capturedLogs() as more_logs:
            self.assertIsNone(self.storage.load("a.example.org"))
        self.assertEqual((len(logs), len(more_logs)), (1, 1))

    def test_names_that_are_no_host_names(self) -> None:
        """A name cannot leave the directory of the storage."""
        certificate = issue_certificate("a.example.org")
        for name in ("", ".", "..", "../x", "/etc", ".hidden", "a\0b"):
            self.assertRaises(ValueError, self.storage.save, name, certificate)
            with capturedLogs():
                self.assertIsNone(self.storage.load(name))

    def test_failed_write_leaves_the_old_certificate(self) -> None:
        """If the directory is a file, the error is raised and nothing changes."""
        self.root.parent.mkdir()
        self.root.write_text("a file")
        self.assertRaises(OSError, self.storage.save, "a", issue_certificate("a"))
        self.assertEqual(self.root.read_text(), "a file")


class DirectoryTests(SynchronousTestCase):
    """The directories of ACME servers."""

    def test_one_directory_per_server(self) -> None:
        """Certificates of a staging server are not used in production."""
        paths = [
            Storage("/s", url).path
            for url in (
                "https://acme-v02.api.letsencrypt.org/directory",
                "https://acme-staging-v02.api.letsencrypt.org/directory",
                "https://LOCALHOST:14000/dir",
                "https://user@[::1]:14000/dir",
            )
        ]
        self.assertEqual(
            paths,
            [
                "/s/acme-v02.api.letsencrypt.org",
                "/s/acme-staging-v02.api.letsencrypt.org",
                "/s/localhost_14000",
                "/s/::1_14000",
            ],
        )

    def test_invalid_urls(self) -> None:
        """A directory without host, or without https, is an error of the configuration."""
        for url in (
            "",
            "x",
            "https://",
            "http://a/dir",
            "https://../x",
            "https://a:b/",
            "https://[",
        ):
            self.assertRaises(ConfigError, Storage, "/s", url)


class AccountKeyTests(StorageTestCase):
    """The account key."""

    def test_key_is_generated_once(self) -> None:
        """The first call generates the key, later ones read it."""
        self.assertEqual(self.storage.account_key(lambda: b"one", len), b"one")
        self.assertEqual(self.storage.account_key(lambda: b"two", len), b"one")

    def test_damaged_key_is_renamed(self) -> None:
        """A file without a key is kept under another name, logged, and replaced."""

        def check(content: bytes) -> None:
            """Accept only "two"."""
            if content != b"two":
                raise ValueError("no key")

        self.storage.account_key(lambda: b"one", len)
        with capturedLogs() as logs:
            self.assertEqual(self.storage.account_key(lambda: b"two", check), b"two")
        self.assertEqual(logs[0]["reason"], "no key")
        bad = Path(self.storage.path, "account.pem.bad")
        self.assertEqual(bad.read_bytes(), b"one")

    def test_key_that_cannot_be_read_stays(self) -> None:
        """An error of the file system is no reason to register another account."""
        self.storage.account_key(lambda: b"one", len)
        path = Path(self.storage.path, "account.pem")
        path.unlink()
        path.mkdir()
        self.assertRaises(OSError, self.storage.account_key, lambda: b"two", len)
        self.assertTrue(path.is_dir())

    def test_concurrent_first_calls_get_the_same_key(self) -> None:
        """Orders that begin at the same time register one account."""
        barrier = threading.Barrier(8)
        keys: list[bytes] = []

        def call(number: int) -> None:
            """Call with a key of this thread."""
            barrier.wait(10)
            keys.append(self.storage.account_key(lambda: b"%d" % number, len))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        self.assertEqual(len(keys), 8)
        self.assertEqual(len(set(keys)), 1)
