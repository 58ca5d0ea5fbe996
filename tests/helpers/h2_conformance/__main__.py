"""Run the conformance cases against a server: `python -m tests.helpers.h2_conformance`."""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import sys

from tests.helpers.h2_conformance import CASES
from tests.helpers.h2_conformance.client import Client, ConformanceError, NotApplicableError


class SocketWire:
    """A connection to the server over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        """Use `connection`, whose timeout decides what silence is."""
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Send bytes; the next read reports a connection that the server has closed."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self._connection.sendall(data)

    def receive(self) -> bytes | None:
        """Return received bytes, `b""` after the end of the connection, `None` for silence."""
        try:
            return self._connection.recv(65536)
        except socket.timeout:
            return None
        except (ConnectionResetError, ssl.SSLError):
            return b""


def connect(host: str, port: int, timeout: float, tls: bool) -> socket.socket:
    """
    Return a new connection.

    Raises:
        OSError: the server accepts no connection.
        ConformanceError: the server does not negotiate h2 by ALPN.
    """
    connection = socket.create_connection((host, port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    secure = context.wrap_socket(connection, server_hostname="localhost")
    if secure.selected_alpn_protocol() != "h2":
        secure.close()
        raise ConformanceError("the server did not select h2")
    return secure


def main() -> None:
    """Run the selected cases, print the result of each, and exit with status 1 on failures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.helpers.h2_conformance",
        description="The path / of the server must have content of at least 5 bytes.",
    )
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--only", default="", help="beginning of the names of cases: http2/6.5")
    parser.add_argument("--strict", action="store_true", help="require more than h2spec")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds of silence")
    parser.add_argument("--tls", action="store_true", help="connect with TLS and ALPN")
    options = parser.parse_args()
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for case in CASES:
        if not case.identifier.startswith(options.only):
            continue
        result, reason = "passed", ""
        try:
            with connect(options.host, options.port, options.timeout, options.tls) as connection:
                case.run(Client(SocketWire(connection), options.strict))
        except NotApplicableError as error:
            result, reason = "skipped", f": {error}"
        except ConformanceError as error:
            result, reason = "failed", f": {error}"
        counts[result] += 1
        print(f"{result} {case.identifier} ({case.section}) {case.title}{reason}")
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    sys.exit(bool(counts["failed"]))


if __name__ == "__main__":
    main()
