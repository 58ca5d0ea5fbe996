"""What is asked of the admin listener, and how its answers are understood."""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, NamedTuple

from balancebeam.cli.admin_address import AdminAddress
from balancebeam.cli.deadline_socket import MAX_RESPONSE_BYTES, ResponseTooLarge, connect
from balancebeam.cli.errors import ConnectionFailed, RequestRejected


class Response(NamedTuple):
    """A whole answer; `content_type` is its media type."""

    status: int
    content_type: str
    body: bytes


class AdminClient:
    """
    Asks the admin listener at `address`, each time by a new connection and for
    `timeout` seconds.
    """

    def __init__(
        self, address: AdminAddress, token: str | None = None, timeout: float = 10.0
    ) -> None:
        self.address = address
        self._token = token
        self._timeout = timeout

    def request(self, method: str, path: str, content: Any = None) -> Any:
        """The data of a success. Raises `RequestRejected` and `ConnectionFailed`."""
        answer = self._send(method, path, content)
        succeeded, data = self._parse_jsend(answer)
        if not succeeded:
            raise self._rejected(answer.status, data)
        return data

    def get_text(self, path: str, content_type: str) -> str:
        """What is at `path`, of the media type `content_type`. Raises `RequestRejected` and `ConnectionFailed`."""
        answer = self._send("GET", path, None)
        if answer.status == 200 and answer.content_type == content_type:
            return answer.body.decode("utf-8", "replace")
        succeeded, data = self._parse_jsend(answer)
        raise (
            self._unexpected_response(answer) if succeeded else self._rejected(answer.status, data)
        )

    def _rejected(self, status: int, text: str) -> RequestRejected:
        if status != 401:
            return RequestRejected(text)
        if self._token is None:
            return RequestRejected(f"{text}; give it by --token-file FILE or BALANCEBEAM_TOKEN")
        return RequestRejected(f"{text}, and the one that was given is wrong")

    def _parse_jsend(self, answer: Response) -> tuple[bool, Any]:
        """Whether it went well, and the data or what was wrong, of JSend."""
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and "data" in found:
            status, data = found.get("status"), found["data"]
            if status == "success" and answer.status == 200:
                return True, data
            if status == "fail" and isinstance(data, dict):
                data = data.get("title")
            if status in ("error", "fail") and answer.status >= 400 and isinstance(data, str):
                return False, data
        raise self._unexpected_response(answer)

    def _unexpected_response(self, answer: Response) -> ConnectionFailed:
        return self._connection_failed(
            "does not answer as the admin listener of a balancebeam does "
            f"(status {answer.status}, {answer.content_type or 'no media type'})"
        )

    def _connection_failed(self, reason: str) -> ConnectionFailed:
        return ConnectionFailed(f"{self.address.text} {reason}")

    # How an answer comes.

    def _send(self, method: str, path: str, content: Any) -> Response:
        try:
            line = connect(self.address, time.monotonic() + self._timeout)
        except (ConnectionRefusedError, FileNotFoundError):
            raise ConnectionFailed(
                f"nothing listens at {self.address.text}; "
                "say by --admin ADDR where the balancer's --admin is"
            ) from None
        except socket.timeout:
            raise self._timed_out() from None
        except (OSError, ValueError) as error:
            raise self._io_failed(error) from None
        asking = HTTPConnection("localhost")
        asking.sock, asking.auto_open = line, 0
        try:
            return self._round_trip(asking, method, path, content)
        except socket.timeout:
            raise self._timed_out() from None
        except ResponseTooLarge:
            raise self._connection_failed(
                f"answers with more than {MAX_RESPONSE_BYTES} bytes"
            ) from None
        except IncompleteRead:
            raise self._connection_failed("stopped in the middle of its answer") from None
        except ConnectionError:
            raise self._connection_failed("closed the connection without an answer") from None
        except OSError as error:
            raise self._io_failed(error) from None
        except (HTTPException, ValueError):
            raise self._connection_failed("does not speak HTTP") from None
        finally:
            asking.close()

    def _io_failed(self, error: Exception) -> ConnectionFailed:
        return self._connection_failed(
            f"cannot be reached: {getattr(error, 'strerror', None) or error}"
        )

    def _timed_out(self) -> ConnectionFailed:
        return self._connection_failed(f"did not answer within {self._timeout:g} seconds")

    def _round_trip(
        self, connection: HTTPConnection, method: str, path: str, content: Any
    ) -> Response:
        fields = {"Host": self.address.host_header, "Accept": "*/*", "Connection": "close"}
        if self._token is not None:
            fields["Authorization"] = f"Bearer {self._token}"
        body = None
        if content is not None:
            fields["Content-Type"] = "application/json"
            body = json.dumps(content).encode("ascii")
        connection.request(method, path, body, fields)
        with connection.getresponse() as response:
            content_type = (response.getheader("Content-Type") or "").partition(";")[0]
            return Response(response.status, content_type.strip().lower(), _read_body(response))


def _read_body(response: HTTPResponse) -> bytes:
    if (response.length or 0) > MAX_RESPONSE_BYTES:
        raise ResponseTooLarge
    parts = []
    while True:
        part = response.read(65536)
        if not part:
            break
        parts.append(part)
    if response.length:
        # `read` says nothing of it when it is told how much to read.
        raise IncompleteRead(b"", response.length)
    return b"".join(parts)
