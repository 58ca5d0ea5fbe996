"""
HTTP client of the admin API.

Responses are bounded in time and size, see `deadline_socket`. JSON bodies have the JSend form:
`{"status": "success", "data": …}`, or `"error"` with a message as data; `"fail"` with the message
in `data.title` is the form of older versions.
"""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, NamedTuple

from balancebeam.cli.admin_address import AdminAddress
from balancebeam.cli.deadline_socket import MAX_RESPONSE_BYTES, ResponseTooLarge, connect
from balancebeam.cli.errors import ConnectionFailed, RequestRejected, describe_os_error

# Media type of server-sent events.
EVENT_STREAM = "text/event-stream"

# Bytes of one read from a response.
_READ_SIZE = 65536


class Response(NamedTuple):
    """
    A complete response.

    Attributes:
        status: status code.
        content_type: media type in lower case, without parameters; empty if there is none.
        body: the content.
    """

    status: int
    content_type: str
    body: bytes


class AdminClient:
    """
    Client of the admin listener at one address.

    Every request has a connection of its own.

    Attributes:
        address: address of the admin listener.
    """

    def __init__(
        self, address: AdminAddress, token: str | None = None, timeout: float = 10.0
    ) -> None:
        """
        Create a client; it does not connect yet.

        Args:
            token: the bearer token, if the listener demands one.
            timeout: time limit in seconds for each request, from connecting to the end of
                the response.
        """
        self.address = address
        self._token = token
        self._timeout = timeout

    def request(self, method: str, path: str, content: Any = None) -> Any:
        """
        Send a request and return the data of the response.

        Args:
            content: body of the request, anything that JSON can represent; None for no body.

        Raises:
            RequestRejected: the admin API reported an error.
            ConnectionFailed: there was no response, or not one of the admin API.
        """
        response = self._send(method, path, content)
        succeeded, data = self._parse_jsend(response)
        if not succeeded:
            raise self._rejected(response.status, data)
        return data

    def get_text(self, path: str, content_type: str) -> str:
        """
        Return the text at `path`, whose media type has to be `content_type`.

        Raises:
            RequestRejected: the admin API reported an error.
            ConnectionFailed: there was no response, or not one of the admin API.
        """
        response = self._send("GET", path, None)
        if response.status == 200 and response.content_type == content_type:
            return response.body.decode("utf-8", "replace")
        succeeded, data = self._parse_jsend(response)
        if succeeded:
            raise self._unexpected_response(response)
        raise self._rejected(response.status, data)

    def first_event(self, path: str, name: str) -> Any:
        """
        Return the data of the first server-sent event called `name`, and close the stream.

        Raises:
            RequestRejected: the admin API reported an error.
            ConnectionFailed: there was no such event, or no response of the admin API.
        """
        response = self._send("GET", path, None, event=name)
        if response.status != 200 or response.content_type != EVENT_STREAM:
            succeeded, data = self._parse_jsend(response)
            if not succeeded:
                raise self._rejected(response.status, data)
            raise self._unexpected_response(response)
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError):
            raise self._connection_failed("sent an invalid event") from None

    def _rejected(self, status: int, message: str) -> RequestRejected:
        if status != 401:
            return RequestRejected(message)
        if self._token is None:
            return RequestRejected(f"{message}; give it by --token-file FILE or BALANCEBEAM_TOKEN")
        return RequestRejected(f"{message}, and the one that was given is wrong")

    def _parse_jsend(self, response: Response) -> tuple[bool, Any]:
        """Return whether the request succeeded, and its data or the error message."""
        try:
            document = json.loads(response.body)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and "data" in document:
            status, data = document.get("status"), document["data"]
            if status == "success" and response.status == 200:
                return True, data
            if status == "fail" and isinstance(data, dict):
                data = data.get("title")
            if status in ("error", "fail") and response.status >= 400 and isinstance(data, str):
                return False, data
        raise self._unexpected_response(response)

    def _unexpected_response(self, response: Response) -> ConnectionFailed:
        return self._connection_failed(
            "does not answer as the admin listener of a balancebeam does "
            f"(status {response.status}, {response.content_type or 'no media type'})"
        )

    def _connection_failed(self, reason: str) -> ConnectionFailed:
        return ConnectionFailed(f"{self.address.text} {reason}")

    def _timed_out(self) -> ConnectionFailed:
        return self._connection_failed(f"did not respond within {self._timeout:g} seconds")

    def _unreachable(self, error: Exception) -> ConnectionFailed:
        return self._connection_failed(f"cannot be reached: {describe_os_error(error)}")

    def _send(self, method: str, path: str, content: Any, event: str | None = None) -> Response:
        """
        Connect, send a request and receive the response; of a stream the data of one event.

        Raises:
            ConnectionFailed: there was no response, or an invalid one.
        """
        try:
            connected_socket = connect(self.address, time.monotonic() + self._timeout)
        except (ConnectionRefusedError, FileNotFoundError):
            raise ConnectionFailed(
                f"nothing listens at {self.address.text}: "
                "set the address of the admin listener with --admin ADDR"
            ) from None
        except socket.timeout:
            raise self._timed_out() from None
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from None
        connection = HTTPConnection("localhost")
        # Without auto_open, http.client cannot replace the socket by one without a deadline.
        connection.sock, connection.auto_open = connected_socket, 0
        try:
            return self._exchange(connection, method, path, content, event)
        except socket.timeout:
            raise self._timed_out() from None
        except ResponseTooLarge:
            raise self._connection_failed(
                f"sent a response of more than {MAX_RESPONSE_BYTES} bytes"
            ) from None
        except IncompleteRead:
            raise self._connection_failed(
                "closed the connection in the middle of the response"
            ) from None
        except ConnectionError:
            raise self._connection_failed("closed the connection without a response") from None
        except OSError as error:
            raise self._unreachable(error) from None
        except (HTTPException, ValueError):
            raise self._connection_failed("sent an invalid HTTP response") from None
        finally:
            connection.close()

    def _exchange(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        content: Any,
        event: str | None = None,
    ) -> Response:
        """Send a request on `connection` and receive the response."""
        headers = {"Host": self.address.host_header, "Accept": "*/*", "Connection": "close"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        body = None
        if content is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(content).encode("ascii")
        connection.request(method, path, body, headers)
        with connection.getresponse() as response:
            content_type = (response.getheader("Content-Type") or "").partition(";")[0]
            media_type = content_type.strip().lower()
            if event is not None and media_type == EVENT_STREAM:
                return Response(response.status, media_type, _read_event(response, event))
            return Response(response.status, media_type, _read_body(response))


def _read_event(response: HTTPResponse, name: str) -> bytes:
    """Return the data of the first event called `name`. Raises `IncompleteRead`."""
    # https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    current, data = b"", []
    while True:
        line = response.readline()
        if not line.endswith(b"\n"):
            raise IncompleteRead(line)
        field, _, value = line.rstrip(b"\r\n").partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"event":
            current = value
        elif field == b"data":
            data.append(value)
        elif not field and not value:
            if current == name.encode():
                return b"\n".join(data)
            current, data = b"", []


def _read_body(response: HTTPResponse) -> bytes:
    """Return the whole body. Raises `ResponseTooLarge` and `IncompleteRead`."""
    if (response.length or 0) > MAX_RESPONSE_BYTES:
        raise ResponseTooLarge
    parts = []
    while True:
        part = response.read(_READ_SIZE)
        if not part:
            break
        parts.append(part)
    if response.length:
        # `read` with a size does not raise IncompleteRead when the connection is closed early.
        raise IncompleteRead(b"", response.length)
    return b"".join(parts)
