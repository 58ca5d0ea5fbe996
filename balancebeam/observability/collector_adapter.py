"""
HTTP to the collector, as a transport adapter of the library `requests`.

The adapter of `requests` itself limits the time between two bytes only, and neither the length
of a response nor the time of all of it: a collector that sends a byte now and then would block
the thread forever. It also cannot be interrupted.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Bytes of a response that are read: an ExportTraceServiceResponse has a counter and a message.
MAX_RESPONSE = 64 * 1024

# Characters of a response that are shown in the program's log.
_MAX_DETAIL = 100

# Bytes of one write, after which the deadline is checked.
_WRITE_SIZE = 64 * 1024


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until a deadline, and at most `MAX_RESPONSE` bytes."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline
        self._received_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._received_bytes > MAX_RESPONSE:
            raise HTTPException(f"response of more than {MAX_RESPONSE} bytes")
        _apply_deadline(self._connection, self._deadline)
        size = self._connection.recv_into(buffer)
        self._received_bytes += size
        return size


class _ResponseSocket:
    """As much of a socket as `HTTPResponse` uses."""

    def __init__(self, reader: _DeadlineReader) -> None:
        self._reader = reader

    def makefile(self, mode: str) -> io.BufferedReader:
        """The bytes of the response."""
        return io.BufferedReader(self._reader)


class CollectorAdapter(BaseAdapter):
    """
    Sends each request on a connection of its own, within a time limit, and interruptibly.

    Attributes:
        problem: Why the last request failed; empty if it did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problem = ""
        self._connection: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        """Fail the request in progress and all later ones; called from another thread."""
        self._aborted = True
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                # Not the method of an SSLSocket, which is no longer safe to use here.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Do nothing: no connection is kept."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """
        Send a request; see `BaseAdapter.send`.

        Raises:
            requests.RequestException: There is no complete response within `timeout` seconds.
        """
        deadline = time.monotonic() + float(timeout)
        try:
            response = self._exchange(request, deadline, verify, cert)
        except (TimeoutError, socket.timeout) as error:
            # Two classes before Python 3.10.
            self.problem = "timeout expired"
            raise requests.Timeout(self.problem) from error
        except OSError as error:
            self.problem = (error.strerror or str(error)).lower()
            raise requests.ConnectionError(self.problem) from error
        except (HTTPException, ValueError) as error:
            detail = str(error).strip() or type(error).__name__
            self.problem = f"invalid response: {detail[:_MAX_DETAIL]}"
            raise requests.RequestException(self.problem) from error
        self.problem = "" if response.ok else f"status {response.status_code}"
        return response

    def _exchange(
        self, request: requests.PreparedRequest, deadline: float, verify: bool | str, cert: Any
    ) -> requests.Response:
        url = urlsplit(str(request.url))
        connection = self._connect(url.hostname or "", url.port, url.scheme, deadline)
        try:
            if url.scheme == "https":
                connection = self._start_tls(connection, url.hostname or "", verify, cert)
            self._connection = connection
            if self._aborted:
                raise ConnectionError("stopping")
            _send_all(connection, _encode(request, url.netloc, url.path), deadline)
            reader = _ResponseSocket(_DeadlineReader(connection, deadline))
            received = HTTPResponse(reader, method="POST")  # type: ignore[arg-type]
            received.begin()
            body = received.read(MAX_RESPONSE)
            if received.length:
                raise HTTPException("incomplete or too large")
        finally:
            self._connection = None
            connection.close()
        response = requests.Response()
        response.status_code = received.status
        response.reason = received.reason
        response.headers = requests.structures.CaseInsensitiveDict(received.getheaders())
        response.url = str(request.url)
        response.request = request
        response.raw = io.BytesIO(body)
        return response

    def _connect(self, host: str, port: int | None, scheme: str, deadline: float) -> socket.socket:
        if self._aborted:
            raise ConnectionError("stopping")
        address = (host, port or (443 if scheme == "https" else 80))
        connection = socket.create_connection(address, max(0.001, deadline - time.monotonic()))
        self._connection = connection
        _apply_deadline(connection, deadline)
        return connection

    def _start_tls(
        self, connection: socket.socket, host: str, verify: bool | str, cert: Any
    ) -> socket.socket:
        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
        if cert:
            context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
        return context.wrap_socket(connection, server_hostname=host)


def _apply_deadline(connection: socket.socket, deadline: float) -> None:
    """Limit the next call to the remaining time."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    connection.settimeout(remaining)


def _send_all(connection: socket.socket, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        _apply_deadline(connection, deadline)
        view = view[connection.send(view[:_WRITE_SIZE]) :]


def _encode(request: requests.PreparedRequest, host: str, path: str) -> bytes:
    """Return a request in wire form; the connection is closed after the response."""
    # The library passes the encoded message.
    body = request.body
    assert isinstance(body, bytes)
    fields = {**request.headers, "Host": host, "Connection": "close"}
    fields["Content-Length"] = str(len(body))
    lines = [f"{request.method} {path or '/'} HTTP/1.1"]
    lines += [f"{name}: {_text(value)}" for name, value in fields.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
