"""TLS over in-memory transports: contexts, a client, and forged records."""

from __future__ import annotations

import contextlib
import functools
import ssl
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from ssl import SSLWantReadError as NeedMoreInput
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from twisted.internet import error
from twisted.python.failure import Failure

from balancebeam.tls.contexts import NO_RENEGOTIATION
from tests.helpers.certificates import CertificateAuthority, shared_authority
from tests.helpers.memory import MemoryTransport

# Content types (RFC 8446, 5.1).
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23

# Alert records before encryption: level and description (RFC 8446, 6).
WARNING_NO_RENEGOTIATION = b"\x01\x64"
WARNING_USER_CANCELED = b"\x01\x5a"
CLOSE_NOTIFY = b"\x01\x00"
FATAL_INTERNAL_ERROR = b"\x02\x50"

# RFC 8446, 4.6.3: a KeyUpdate that requests one of the peer.
KEY_UPDATE = b"\x18\x00\x00\x01\x01"

# A ClientHello of TLS 1.3 that OpenSSL answers: TLS_AES_128_GCM_SHA256, secp256r1 with the
# generator of the curve as key share, ecdsa_secp256r1_sha256.
SMALL_CLIENT_HELLO = (
    bytes.fromhex("16030100910100008d0303")
    + bytes(32)
    + bytes.fromhex(
        "000002130101000062002b0003020304000a000400020017000d00040002040300330047004500170041"
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
)

# The only cipher suite of TLS 1.2 that `forge_tls12` encrypts.
TLS12_CIPHER = "ECDHE-ECDSA-AES128-GCM-SHA256"


@functools.cache
def server_context(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, tickets: int = 2
) -> ssl.SSLContext:
    """A context with a certificate of the shared CA for example.org; always the same one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    context.options |= NO_RENEGOTIATION
    context.num_tickets = tickets
    with tempfile.TemporaryDirectory() as folder:
        path = shared_authority().issue("example.org").write_file(Path(folder, "pair.pem"))
        context.load_cert_chain(path)
    return context


def client_context(authority: CertificateAuthority | None = None) -> ssl.SSLContext:
    """A context that trusts the shared CA only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=(authority or shared_authority()).root.decode())
    return context


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Divide `data` into pieces of these sizes, in a cycle; one piece without any."""
    start = number = 0
    while start < len(data):
        end = start + sizes[number % len(sizes)] if sizes else len(data)
        yield data[start:end]
        start, number = end, number + 1


class TlsPeer:
    """
    The remote end of an in-memory connection, which uses the `ssl` module.

    Attributes:
        transport: The balancer's end of the connection.
        engine: The state of TLS.
        sizes: Sizes of the segments that are sent, in a cycle; whole flights without any.
        wire: All bytes of the balancer that this peer has decrypted.
        eof: A close_notify was received.
    """

    def __init__(
        self,
        transport: MemoryTransport,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        self.transport = transport
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self.sizes = sizes
        self.wire = b""
        self.eof = False

    def deliver(self, data: bytes) -> None:
        """Deliver bytes as a transport does, to its current protocol, until it is closed."""
        for piece in pieces(data, self.sizes):
            if self.transport.closing or self.transport.closed:
                return
            self.transport.protocol.dataReceived(piece)

    def collect(self) -> None:
        """Pass everything that was written to the engine."""
        data = self.transport.read()
        self.wire += data
        self.incoming.write(data)

    def handshake(self) -> TlsPeer:
        """Complete the handshake."""
        for _ in range(10):
            self.collect()
            try:
                self.engine.do_handshake()
            except NeedMoreInput:
                self.deliver(self.outgoing.read())
            else:
                self.deliver(self.outgoing.read())
                return self
        raise AssertionError("handshake not complete")

    def encrypt(self, data: bytes) -> bytes:
        """Return the records of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.engine.write(view) :]
        return self.outgoing.read()

    def send(self, data: bytes) -> None:
        """Send application data."""
        self.deliver(self.encrypt(data))

    def received(self) -> bytes:
        """Return the application data received since the last call."""
        self.collect()
        received = []
        try:
            while True:
                data = self.engine.read(65536)
                if not data:
                    self.eof = True
                    break
                received.append(data)
        except NeedMoreInput:
            pass
        except ssl.SSLZeroReturnError:
            self.eof = True
        return b"".join(received)

    def close_notify(self) -> bytes:
        """Return the record of a close_notify alert."""
        # It is not answered yet.
        with contextlib.suppress(ssl.SSLError):
            self.engine.unwrap()
        return self.outgoing.read()

    def fin(self) -> None:
        """Send a FIN."""
        self.transport.protocol.readConnectionLost()

    def finish_closing(self, reason: Exception | None = None) -> None:
        """Complete the close that the balancer has started, or lose the connection."""
        if self.transport.closed:
            return
        if reason is None:
            assert self.transport.closing
            aborted = self.transport.aborted
            reason = error.ConnectionAborted() if aborted else error.ConnectionDone()
        self.transport.closed = True
        # As Twisted's transports, which drop the reference to their protocol.
        protocol, self.transport.protocol = self.transport.protocol, None
        protocol.connectionLost(Failure(reason))


class Forger:
    """
    Encrypts arbitrary records with the keys of the client of a completed handshake.

    Args:
        keylog: The content of the key log of the client.
        cipher: Name of the cipher suite.
        server_random: The random value of the server; for TLS 1.2 only.
    """

    def __init__(self, keylog: str, cipher: str, server_random: bytes = b"") -> None:
        secrets = {
            line.split()[0]: line.split()[1:] for line in keylog.splitlines() if line[0] != "#"
        }
        self._sequence = 0
        if server_random:
            client_random, master = map(bytes.fromhex, secrets["CLIENT_RANDOM"])
            block = _prf(master, b"key expansion" + server_random + client_random, 40)
            self._key, self._iv = AESGCM(block[:16]), block[32:36]
            # The Finished message was the first encrypted record.
            self._sequence = 1
            return
        self._hash: hashes.HashAlgorithm = hashes.SHA384() if "384" in cipher else hashes.SHA256()
        self._key_size = 32 if "256_GCM" in cipher else 16
        self._set_secret(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"][1]))

    def _set_secret(self, secret: bytes) -> None:
        self._secret, self._sequence = secret, 0
        self._key = AESGCM(self._expand(b"key", self._key_size))
        self._iv = self._expand(b"iv", 12)

    def _expand(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446, 7.1)."""
        name = b"tls13 " + label
        info = struct.pack("!HB", length, len(name)) + name + b"\0"
        return HKDFExpand(self._hash, length, info).derive(self._secret)

    def record(self, kind: int, content: bytes) -> bytes:
        """A record of TLS 1.3."""
        inner = content + bytes((kind,))
        header = struct.pack("!BHH", APPLICATION_DATA, 0x0303, len(inner) + 16)
        number = self._sequence.to_bytes(12, "big")
        nonce = bytes(a ^ b for a, b in zip(self._iv, number))
        self._sequence += 1
        return header + self._key.encrypt(nonce, inner, header)

    def key_update(self) -> bytes:
        """A KeyUpdate that requests an answer; later records use the next keys."""
        record = self.record(HANDSHAKE, KEY_UPDATE)
        self._set_secret(self._expand(b"traffic upd", self._hash.digest_size))
        return record

    def record12(self, kind: int, content: bytes) -> bytes:
        """A record of TLS 1.2."""
        number = self._sequence.to_bytes(8, "big")
        self._sequence += 1
        extra = number + struct.pack("!BHH", kind, 0x0303, len(content))
        encrypted = number + self._key.encrypt(self._iv + number, content, extra)
        return struct.pack("!BHH", kind, 0x0303, len(encrypted)) + encrypted


def _prf(secret: bytes, seed: bytes, length: int) -> bytes:
    """The pseudorandom function of TLS 1.2 (RFC 5246, 5)."""

    def mac(data: bytes) -> bytes:
        code = hmac.HMAC(secret, hashes.SHA256())
        code.update(data)
        return code.finalize()

    result, a = b"", seed
    while len(result) < length:
        a = mac(a)
        result += mac(a + seed)
    return result[:length]


def logging_context(folder: str, tls12: bool = False) -> tuple[ssl.SSLContext, Path]:
    """A client context that logs its keys, and the path of the log."""
    context = client_context()
    path = Path(folder, "keys")
    context.keylog_filename = str(path)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(TLS12_CIPHER)
    return context, path


def forger(peer: TlsPeer, keylog: Path) -> Forger:
    """The forger of the records of `peer`, whose handshake is complete."""
    cipher: Any = peer.engine.cipher()
    tls12 = peer.engine.version() == "TLSv1.2"
    # ServerHello: record header, message header, version, random.
    server_random = peer.wire[11:43] if tls12 else b""
    return Forger(keylog.read_text(), cipher[0], server_random)


@functools.cache
def client_hello(server_name: str = "example.org", alpn: tuple[str, ...] = ()) -> bytes:
    """A ClientHello of the `ssl` module."""
    context = client_context()
    if alpn:
        context.set_alpn_protocols([*alpn])
    outgoing = ssl.MemoryBIO()
    engine = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with contextlib.suppress(NeedMoreInput):
        engine.do_handshake()
    return outgoing.read()
