"""What is asked of the admin listener, and how its answers are understood."""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, NamedTuple

from balancebeam.cli.admin_address import Place
from balancebeam.cli.deadline_socket import MOST, TooMuch, connected
from balancebeam.cli.errors import Refused, Unreachable


class Answer(NamedTuple):
    """A whole answer; `kind` is its media type."""

    status: int
    kind: str
    body: bytes


class Connection:
    """
    Asks the admin listener at `place`, each time by a new connection and for
    `timeout` seconds.
    """

    def __init__(self, place: Place, token: str | None = None, timeout: float = 10.0) -> None:
        self.place = place
        self._token = token
        self._timeout = timeout

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """The data of a success. Raises `Refused` and `Unreachable`."""
        answer = self._answer(method, path, content)
        succeeded, data = self._understand(answer)
        if not succeeded:
            raise self._refused(answer.status, data)
        return data

    def text(self, path: str, kind: str) -> str:
        """What is at `path`, of the media type `kind`. Raises `Refused` and `Unreachable`."""
        answer = self._answer("GET", path, None)
        if answer.status == 200 and answer.kind == kind:
            return answer.body.decode("utf-8", "replace")
        succeeded, data = self._understand(answer)
        raise self._not_understood(answer) if succeeded else self._refused(answer.status, data)

    def _refused(self, status: int, text: str) -> Refused:
        if status != 401:
            return Refused(text)
        if self._token is None:
            return Refused(f"{text}; give it by --token-file FILE or BALANCEBEAM_TOKEN")
        return Refused(f"{text}, and the one that was given is wrong")

    def _understand(self, answer: Answer) -> tuple[bool, Any]:
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
        raise self._not_understood(answer)

    def _not_understood(self, answer: Answer) -> Unreachable:
        return self._unreachable(
            "does not answer as the admin listener of a balancebeam does "
            f"(status {answer.status}, {answer.kind or 'no media type'})"
        )

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(f"{self.place.text} {why}")

    # How an answer comes.

    def _answer(self, method: str, path: str, content: Any) -> Answer:
        try:
            line = connected(self.place, time.monotonic() + self._timeout)
        except (ConnectionRefusedError, FileNotFoundError):
            raise Unreachable(
                f"nothing listens at {self.place.text}; "
                "say by --admin ADDR where the balancer's --admin is"
            ) from None
        except socket.timeout:
            raise self._late() from None
        except (OSError, ValueError) as error:
            raise self._lost(error) from None
        asking = HTTPConnection("localhost")
        asking.sock, asking.auto_open = line, 0
        try:
            return self._exchange(asking, method, path, content)
        except socket.timeout:
            raise self._late() from None
        except TooMuch:
            raise self._unreachable(f"answers with more than {MOST} bytes") from None
        except IncompleteRead:
            raise self._unreachable("stopped in the middle of its answer") from None
        except ConnectionError:
            raise self._unreachable("closed the connection without an answer") from None
        except OSError as error:
            raise self._lost(error) from None
        except (HTTPException, ValueError):
            raise self._unreachable("does not speak HTTP") from None
        finally:
            asking.close()

    def _lost(self, error: Exception) -> Unreachable:
        return self._unreachable(f"cannot be reached: {getattr(error, 'strerror', None) or error}")

    def _late(self) -> Unreachable:
        return self._unreachable(f"did not answer within {self._timeout:g} seconds")

    def _exchange(self, asking: HTTPConnection, method: str, path: str, content: Any) -> Answer:
        fields = {"Host": self.place.field, "Accept": "*/*", "Connection": "close"}
        if self._token is not None:
            fields["Authorization"] = f"Bearer {self._token}"
        body = None
        if content is not None:
            fields["Content-Type"] = "application/json"
            body = json.dumps(content).encode("ascii")
        asking.request(method, path, body, fields)
        with asking.getresponse() as response:
            kind = (response.getheader("Content-Type") or "").partition(";")[0]
            return Answer(response.status, kind.strip().lower(), _body(response))


def _body(response: HTTPResponse) -> bytes:
    if (response.length or 0) > MOST:
        raise TooMuch
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
