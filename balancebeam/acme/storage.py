"""
The ACME account key and the certificates on disk.

The layout, with directories of mode 0700 and files of mode 0600::

    STORAGE/HOST[_PORT]/account.pem
    STORAGE/HOST[_PORT]/certificates/NAME/fullchain.pem
    STORAGE/HOST[_PORT]/certificates/NAME/privkey.pem

HOST and PORT come from the URL of the ACME directory, so that accounts and certificates of a
staging server are never used in production. The directory of a name is a valid element of
`certificates` in a configuration file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import Callable
from urllib.parse import urlsplit

from twisted.logger import Logger

from balancebeam.acme.certificate import Certificate, read_certificate
from balancebeam.core.errors import ConfigError, describe_os_error

ACCOUNT_KEY = "account.pem"
CHAIN = "fullchain.pem"
KEY = "privkey.pem"

# Bytes. A chain has a few KiB, so a larger file is something else.
MAX_FILE_SIZE = 1024 * 1024

_log = Logger()


class Storage:
    """
    The storage of one ACME server.

    Writes are atomic: a reader finds the old or the new content of a file. A crash between the
    writes of a chain and its key leaves files that do not match, which `load` recognizes.

    Attributes:
        path: directory of the account and the certificates.
    """

    def __init__(self, path: str, directory_url: str) -> None:
        """
        Create the storage; no file is touched.

        Args:
            path: The directory of the storages of all ACME servers.
            directory_url: URL of the directory of the ACME server.

        Raises:
            ConfigError: The URL is invalid.
        """
        self._root = path
        self.path = os.path.join(path, _host_directory(directory_url))

    def directory(self, name: str) -> str:
        """
        Return the directory of the certificate of `name`, which need not exist.

        Raises:
            ValueError: `name` is no host name.
        """
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"invalid host name {name!r}")
        return os.path.join(self.path, "certificates", name)

    def load(self, name: str) -> Certificate | None:
        """
        Return the stored certificate of `name`; it may have expired.

        Files that cannot be read or used are logged as a warning.

        Returns:
            The certificate; `None` if there is none, or none that can be used.
        """
        try:
            directory = self.directory(name)
            chain = _read(os.path.join(directory, CHAIN))
            key = _read(os.path.join(directory, KEY))
            return read_certificate(name, chain, key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warn(
                "stored certificate of {name} ignored: {reason}; a new certificate is ordered",
                name=name,
                reason=describe_os_error(error),
            )
            return None

    def save(self, name: str, certificate: Certificate) -> None:
        """
        Replace the certificate of `name`.

        Raises:
            OSError: The new certificate is not stored, or only a part of it.
            ValueError: `name` is no host name.
        """
        directory = self.directory(name)
        self._make_directories(os.path.dirname(directory), directory)
        _replace(os.path.join(directory, KEY), certificate.key)
        _replace(os.path.join(directory, CHAIN), certificate.chain)

    def account_key(self, generate: Callable[[], bytes], check: Callable[[bytes], object]) -> bytes:
        """
        Return the stored account key; on first use, generate and store it.

        A file without a valid key is renamed to `account.pem.bad` and replaced. Threads and
        processes that call this at the same time get the same key.

        Args:
            generate: Returns a new key in PEM.
            check: Raises `ValueError` for content that is no key.

        Raises:
            OSError: The key cannot be read or stored. A file that cannot be read stays.
        """
        self._make_directories()
        with _locked(self.path):
            path = os.path.join(self.path, ACCOUNT_KEY)
            try:
                key = _read(path)
                check(key)
                return key
            except FileNotFoundError:
                pass
            except ValueError as error:
                _log.warn(
                    "ACME account key {path!r} ignored: {reason}; renamed to {bad_path!r}, "
                    "and a new account is registered",
                    path=path,
                    reason=str(error),
                    bad_path=f"{path}.bad",
                )
                os.replace(path, f"{path}.bad")
            key = generate()
            _replace(path, key)
            return key

    def _make_directories(self, *directories: str) -> None:
        # makedirs applies its mode to the last directory only.
        os.makedirs(self._root, 0o700, exist_ok=True)
        for directory in (self.path, *directories):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)


def _host_directory(url: str) -> str:
    """Return "HOST" or "HOST_PORT" of the URL of an ACME directory."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    # RFC 8555, 6.1: "Use of HTTPS is REQUIRED."
    if not host or host.startswith(".") or parts.scheme != "https":
        raise ConfigError(f"[acme]: invalid directory {url!r}: expected https://HOST/PATH")
    return host if port is None else f"{host}_{port}"


def _read(path: str) -> bytes:
    """Return the content of a file. Raises `OSError`; `ValueError` if the file is too large."""
    # Without O_NONBLOCK, opening a named pipe blocks until it has a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        content = file.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        raise ValueError(f"larger than {MAX_FILE_SIZE} bytes")
    return content


def _replace(path: str, content: bytes) -> None:
    """Replace the content of a file, atomically and durably. Raises `OSError`."""
    # A file of mode 0600 with a new name, whatever another process does.
    descriptor, new = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold the exclusive lock of a directory; waits for other threads and processes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
