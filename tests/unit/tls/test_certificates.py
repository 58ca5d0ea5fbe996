"""Certificate files: reading, checks and warnings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import ConfigError
from balancebeam.core.tls_settings import CertificateSource, FrontendTlsSettings
from balancebeam.tls.certificates import Certificate, parse_certificate, read_certificate
from balancebeam.tls.pem import read_ca_file
from balancebeam.tls.sources import frontend_signatures, read_files
from tests.helpers.certificates import DAY, ec_key, encode_key, rsa_key, shared_authority, write

CA = shared_authority()
SITE = CA.issue("www.Example.org", "*.example.net", "192.0.2.1", "::1")


class CertificateFileTestCase(SynchronousTestCase):
    """A directory for files."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def assert_rejected(self, source: CertificateSource, path: str, reason: str) -> None:
        """Reading fails with a message of exactly file and reason."""
        error = self.assertRaises(ValueError, read_certificate, source)
        self.assertEqual(str(error), f"{path}: {reason}")

    def assert_file_rejected(self, content: bytes, reason: str) -> None:
        """A file with chain and key is rejected."""
        path = write(self.folder / "site.pem", content)
        self.assert_rejected(CertificateSource(path), path, reason)


class ValidCertificateTests(CertificateFileTestCase):
    """Certificates that can be used."""

    def test_forms_of_files(self) -> None:
        """Directory, one file and two files give the same certificate."""
        sources = (
            CertificateSource(SITE.write_directory(self.folder / "live")),
            CertificateSource(SITE.write_file(self.folder / "site.pem")),
            CertificateSource(*SITE.write_pair(self.folder / "c.pem", self.folder / "k.pem")),
        )
        for source in sources:
            certificate = read_certificate(source)
            self.assertEqual(certificate.source, str(source))
            self.assertEqual((certificate.chain, certificate.key), (SITE.chain, SITE.key))

    def test_key_before_chain(self) -> None:
        """The key may precede the chain, and other blocks and text are ignored."""
        content = b"Bag Attributes\r\n" + SITE.key + b"\nsubject=x\n" + SITE.chain
        content += b"-----BEGIN DH PARAMETERS-----\nAA==\n-----END DH PARAMETERS-----\n"
        certificate = parse_certificate("x", content.replace(b"\n", b"\r\n"))
        self.assertEqual((certificate.chain, certificate.key), (SITE.chain, SITE.key))

    def test_names(self) -> None:
        """DNS names are in lower case; IP addresses are no names; the first name is displayed."""
        certificate = parse_certificate("x", SITE.chain + SITE.key)
        self.assertEqual(certificate.names, ("www.example.org", "*.example.net"))
        self.assertEqual(certificate.addresses, ("192.0.2.1", "::1"))
        self.assertEqual(certificate.name, "www.example.org")

    def test_common_name(self) -> None:
        """The common name counts only in a certificate without subjectAltName."""
        cases = (
            (CA.issue(common_name="Old.example"), ("old.example",), ()),
            (CA.issue(common_name="192.0.2.7"), (), ("192.0.2.7",)),
            (CA.issue("new.example", common_name="old.example"), ("new.example",), ()),
            (CA.issue("192.0.2.7", common_name="old.example"), (), ("192.0.2.7",)),
        )
        for issued, names, addresses in cases:
            certificate = parse_certificate("x", issued.chain + issued.key)
            self.assertEqual((certificate.names, certificate.addresses), (names, addresses))
            self.assertEqual(certificate.name, (names + addresses)[0])

    def test_validity(self) -> None:
        """The validity is in POSIX seconds, whatever the time zone."""
        issued = CA.issue("a", not_before=1.6e9, not_after=1.7e9)
        certificate = parse_certificate("x", issued.chain + issued.key)
        self.assertEqual((certificate.not_before, certificate.not_after), (1.6e9, 1.7e9))

    def test_key_types(self) -> None:
        """The types of keys are recognized, also in the format of `openssl ecparam`."""
        issued = CA.issue("a", key=rsa_key())
        self.assertEqual(parse_certificate("x", issued.chain + issued.key).key_type, "rsa")
        key = ec_key()
        issued = CA.issue("a", key=key)
        traditional = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        parameters = (
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        )
        certificate = parse_certificate("x", parameters + traditional + issued.chain)
        self.assertEqual(certificate.key_type, "ec")

    def test_key_is_not_shown(self) -> None:
        """The representation of a certificate, which may be logged, has no key."""
        certificate = parse_certificate("x", SITE.chain + SITE.key)
        self.assertNotIn(SITE.key[30:60], repr(certificate).encode())


class InvalidCertificateTests(CertificateFileTestCase):
    """Certificates that cannot be used."""

    def test_unreadable_files(self) -> None:
        """A missing file, a directory without files, and a FIFO without a writer are named."""
        missing = str(self.folder / "missing.pem")
        self.assert_rejected(
            CertificateSource(missing), missing, "cannot be read: no such file or directory"
        )
        self.assert_rejected(
            CertificateSource(str(self.folder)),
            str(self.folder / "fullchain.pem"),
            "cannot be read: no such file or directory",
        )
        os.mkfifo(self.folder / "fifo")
        fifo = str(self.folder / "fifo")
        self.assert_rejected(CertificateSource(fifo), fifo, "cannot be read: not a regular file")
        self.assert_rejected(
            CertificateSource(fifo, str(self.folder)), fifo, "cannot be read: not a regular file"
        )

    def test_no_descriptor_is_leaked(self) -> None:
        """A directory in place of a file is closed again."""
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            self.assertRaises(ValueError, read_ca_file, str(self.folder))
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)

    def test_contents(self) -> None:
        """Each mistake in a file has a message of its own."""
        encrypted = encode_key(ec_key(), b"secret")
        legacy = (
            b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,AA\n"
        )
        legacy += b"\nAAAA\n-----END EC PRIVATE KEY-----\n"
        leaf = SITE.chain[: -len(CA.intermediate)]
        damaged = leaf.replace(b"\nMII", b"\nMIM", 1)
        no_passphrase = "private key is encrypted: expected a private key without a passphrase"
        cases = (
            (b"", "not a PEM file"),
            (b"\x30\x82\x01\x00", "not a PEM file"),
            (SITE.key, "no certificate"),
            (SITE.chain, "no private key"),
            (SITE.chain + SITE.key * 2, "more than one private key"),
            (SITE.chain + encrypted, no_passphrase),
            (SITE.chain + legacy, no_passphrase),
            (
                SITE.chain + encode_key(ec_key()),
                "private key does not match the certificate",
            ),
            (
                CA.intermediate + leaf + SITE.key,
                "certificate chain out of order: expected the certificate of the private key first",
            ),
            (damaged + SITE.key, "invalid certificate (number 1 of the file)"),
            (leaf + damaged + SITE.key, "invalid certificate (number 2 of the file)"),
            (SITE.chain + SITE.key[:-20], "incomplete PEM block"),
            (SITE.key + SITE.chain[:-500], "incomplete PEM block"),
            (SITE.chain + SITE.key + b" " * 2**20, "larger than 1048576 bytes"),
        )
        for content, reason in cases:
            self.assert_file_rejected(content, reason)

    def test_key_of_another_certificate(self) -> None:
        """With two files, the message has both."""
        cert, key = SITE.write_pair(self.folder / "c.pem", self.folder / "k.pem")
        write(self.folder / "k.pem", encode_key(rsa_key()))
        self.assert_rejected(
            CertificateSource(cert, key),
            key,
            f"private key does not match the certificate in {cert}",
        )

    def test_invalid_key(self) -> None:
        """A damaged key is rejected."""
        pem = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        self.assert_file_rejected(SITE.chain + pem, "invalid private key")

    def test_encrypted_key_never_prompts(self) -> None:
        """A passphrase is not requested, even if there is a terminal."""
        path = write(self.folder / "site.pem", SITE.chain + encode_key(ec_key(), b"secret"))
        program = (
            "import os, pty, sys\n"
            "pid, fd = pty.fork()\n"
            "if pid:\n"
            "    try: output = os.read(fd, 9999)\n"
            "    except OSError: output = b''\n"
            "    os.waitpid(pid, 0)\n"
            "    sys.stdout.buffer.write(output)\n"
            "else:\n"
            "    from balancebeam.core.tls_settings import CertificateSource\n"
            "    from balancebeam.tls.certificates import read_certificate\n"
            "    try: read_certificate(CertificateSource(sys.argv[1]))\n"
            "    except ValueError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, timeout=30, check=True
        )
        self.assertIn(b"private key is encrypted", done.stdout)
        self.assertNotIn(b"pass phrase", done.stdout)

    @given(st.integers(0, 2500), st.binary(max_size=3), st.integers(0, 40))
    def test_damaged_files(self, start: int, inserted: bytes, removed: int) -> None:
        """A damaged file is rejected by a message, or is harmless; nothing else is raised."""
        content = SITE.chain + SITE.key
        content = content[:start] + inserted + content[start + removed :]
        try:
            certificate = parse_certificate("x", content)
        except ValueError as error:
            self.assertTrue(str(error).startswith("x: "), error)
        else:
            self.assertIsInstance(certificate, Certificate)


class WarningTests(CertificateFileTestCase):
    """What does not prevent the use of a certificate."""

    def warnings(self, days_left: float = 90, now_days: float = 0) -> list[str]:
        """The warnings about a certificate, without the source."""
        now = time.time()
        issued = CA.issue("a", not_before=now - 100 * DAY, not_after=now + days_left * DAY)
        certificate = parse_certificate("x", issued.chain + issued.key)
        return [text.partition(": ")[2] for text in certificate.warnings(now + now_days * DAY)]

    def test_expiry(self) -> None:
        """Certificates that have expired, or expire within 14 days, are warned about."""
        self.assertEqual(self.warnings(14.1), [])
        (warning,) = self.warnings(13.9)
        self.assertRegex(warning, r"^certificate expires on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$")
        (warning,) = self.warnings(-1)
        self.assertRegex(warning, r"^certificate expired on ")

    def test_future_certificate(self) -> None:
        """A certificate that is not valid yet is warned about."""
        (warning,) = self.warnings(now_days=-101)
        self.assertRegex(warning, r"^certificate not valid before ")

    def test_readable_key(self) -> None:
        """A key that every user can read is warned about; the group may read it."""
        cert, key = SITE.write_pair(self.folder / "c.pem", self.folder / "k.pem")
        os.chmod(cert, 0o644)
        for mode, expected in ((0o640, []), (0o644, ["private key readable by all users"])):
            os.chmod(key, mode)
            certificate = read_certificate(CertificateSource(cert, key))
            warnings = [text.partition(": ")[2] for text in certificate.warnings(time.time())]
            self.assertEqual(warnings, expected)

    def test_chain_order(self) -> None:
        """Intermediate certificates in another order are warned about."""
        certificate = parse_certificate("x", SITE.chain + CA.root + SITE.key)
        self.assertEqual([*certificate.warnings(time.time())], [])
        leaf = SITE.chain[: -len(CA.intermediate)]
        certificate = parse_certificate("x", leaf + CA.root + CA.intermediate + SITE.key)
        self.assertEqual(
            [*certificate.warnings(time.time())], ["x: certificate chain out of order"]
        )


class FrontendFilesTests(CertificateFileTestCase):
    """The files of a frontend."""

    def test_every_problem_is_reported(self) -> None:
        """All files are read, and each that cannot be used is reported."""
        good = SITE.write_file(self.folder / "good.pem")
        settings = FrontendTlsSettings(
            (CertificateSource("/missing"), CertificateSource(good), CertificateSource("/gone")),
            client_ca=write(self.folder / "ca.pem", SITE.key),
        )
        error = self.assertRaises(ConfigError, read_files, settings)
        self.assertEqual(
            error.problems,
            [
                "/missing: cannot be read: no such file or directory",
                "/gone: cannot be read: no such file or directory",
                f"{self.folder}/ca.pem: no certificate",
            ],
        )

    def test_signatures(self) -> None:
        """A change of any file, a link that is replaced, and a missing file are noticed."""
        live = self.folder / "live"
        SITE.write_directory(self.folder / "1")
        CA.issue("b").write_directory(self.folder / "2")
        live.symlink_to("1")
        ca = write(self.folder / "ca.pem", CA.root)
        settings = FrontendTlsSettings((CertificateSource(str(live)),), client_ca=ca)
        seen = [frontend_signatures(settings)]
        self.assertEqual(frontend_signatures(settings), seen[0])
        live.unlink()
        seen.append(frontend_signatures(settings))
        live.symlink_to("2")
        seen.append(frontend_signatures(settings))
        write(self.folder / "2" / "privkey.pem", b"longer" + SITE.key)
        seen.append(frontend_signatures(settings))
        write(self.folder / "ca.pem", CA.root + CA.root)
        seen.append(frontend_signatures(settings))
        self.assertEqual(len(set(seen)), len(seen))


class Ed25519Tests(SynchronousTestCase):
    """Keys beyond RSA and ECDSA."""

    def test_ed25519(self) -> None:
        """Ed25519 certificates are accepted."""
        issued = CA.issue("a", key=ed25519.Ed25519PrivateKey.generate())  # type: ignore[arg-type]
        self.assertEqual(parse_certificate("x", issued.chain + issued.key).key_type, "ed25519")
