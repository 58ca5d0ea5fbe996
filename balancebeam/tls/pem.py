"""PEM files of certificates and private keys (RFC 7468)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from attrs import evolve, field, frozen

from balancebeam.core.errors import describe_os_error

# A chain with an RSA-4096 key has about 10 KB; the bundle of all public CA certificates 220 KB.
_MAX_FILE_SIZE = 2**20

_BEGIN, _END = b"-----BEGIN ", b"-----END "

_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE")
_KEY_LABEL = b"PRIVATE KEY"


@frozen
class PemFile:
    """
    The contents of a PEM file.

    Attributes:
        path: The path of the file.
        certificates: The certificates in PEM, in the order of the file.
        keys: The private keys in PEM.
        readable_by_all: Whether every user of the system can read the file.
    """

    path: str
    certificates: tuple[bytes, ...]
    keys: tuple[bytes, ...] = field(repr=False)
    readable_by_all: bool = False


def read_pem_file(path: str) -> PemFile:
    """
    Read a PEM file. Other blocks than certificates and private keys are ignored.

    Raises:
        ValueError: The file cannot be read, or is not a PEM file; the text begins with the path.
    """
    try:
        content, mode = read_regular_file(path, _MAX_FILE_SIZE)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {describe_os_error(error)}") from None
    return evolve(parse_pem(path, content), readable_by_all=bool(mode & stat.S_IROTH))


def parse_pem(path: str, content: bytes) -> PemFile:
    """
    Parse the content of a PEM file.

    Raises:
        ValueError: See `read_pem_file`.
    """
    certificates: list[bytes] = []
    keys: list[bytes] = []
    blocks = 0
    for label, block in _pem_blocks(path, content):
        blocks += 1
        if label in _CERTIFICATE_LABELS:
            certificates.append(block)
        elif label.endswith(_KEY_LABEL):
            keys.append(block)
    if not blocks:
        raise ValueError(f"{path}: not a PEM file")
    return PemFile(path, tuple(certificates), tuple(keys))


def read_ca_file(path: str) -> bytes:
    """
    Read the CA certificates of a PEM file.

    Returns:
        The certificates in PEM.

    Raises:
        ValueError: The file cannot be read, or has no certificate.
    """
    certificates = read_pem_file(path).certificates
    if not certificates:
        raise ValueError(f"{path}: no certificate")
    return b"".join(certificates)


def read_regular_file(path: str, max_size: int) -> tuple[bytes, int]:
    """
    Return the content and the mode of a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is larger than `max_size` bytes, or a FIFO or device, which might block; the
            text begins with the path.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # closed below
    except ValueError as error:
        # A NUL character.
        raise ValueError(f"{path}: cannot be read: {error}") from None
    with file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path}: cannot be read: not a regular file")
        content = file.read(max_size + 1)
    if len(content) > max_size:
        raise ValueError(f"{path}: larger than {max_size} bytes")
    return content, mode


def _open_without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


def _pem_blocks(path: str, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield label and text of each block. Raises `ValueError` if the last block has no end."""
    label: bytes | None = None
    block: list[bytes] = []
    for raw_line in content.splitlines():
        line = raw_line.strip()
        if line.startswith(_BEGIN) and line.endswith(b"-----"):
            label, block = line[len(_BEGIN) : -5], []
        if label is None:
            continue
        block.append(line)
        if line == _END + label + b"-----":
            yield label, b"\n".join(block) + b"\n"
            label = None
    if label is not None:
        # A file that is being written, for example.
        raise ValueError(f"{path}: incomplete PEM block")
