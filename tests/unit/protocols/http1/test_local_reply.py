"""Local replies: responses that the proxy makes itself."""

from __future__ import annotations

import json

import h11
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.local_reply import (
    http_date,
    is_json,
    jsend_error,
    jsend_fail,
    jsend_success,
    local_reply,
    local_reply_fields,
    reason_phrase,
)


class LocalReplyTests(SynchronousTestCase):
    """The parts of a local reply, and the whole."""

    def test_dates(self) -> None:
        """A time is formatted as an IMF-fixdate, in whole seconds."""
        self.assertEqual(http_date(0.0), b"Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertEqual(http_date(784111777.9), b"Sun, 06 Nov 1994 08:49:37 GMT")

    def test_phrases(self) -> None:
        """Reason phrases are taken from RFC 9110, and empty for unknown statuses."""
        for status, phrase in (
            *((200, b"OK"), (400, b"Bad Request"), (502, b"Bad Gateway")),
            *((413, b"Content Too Large"), (414, b"URI Too Long"), (599, b"")),
        ):
            self.assertEqual(reason_phrase(status), phrase)

    def test_error_fields(self) -> None:
        """An error is a JSend body with its type and length, followed by further fields."""
        body = jsend_error('a "quoted" \u00e4')
        self.assertEqual(body, b'{"status": "error", "data": "a \\"quoted\\" \\u00e4"}')
        self.assertEqual(
            local_reply_fields(body, ((b"Retry-After", b"1"),)),
            [
                (b"Content-Type", b"application/json"),
                (b"Content-Length", b"%d" % len(body)),
                (b"Retry-After", b"1"),
            ],
        )

    def test_jsend_bodies(self) -> None:
        """Successes have any data, failures a title."""
        self.assertEqual(json.loads(jsend_success([1])), {"status": "success", "data": [1]})
        self.assertEqual(json.loads(jsend_fail("x")), {"status": "fail", "data": {"title": "x"}})

    def test_is_json(self) -> None:
        """Exactly one Content-Type, application/json in any case, with any parameters."""
        for values in ([b"application/json"], [b"Application/JSON ; charset=utf-8"]):
            self.assertTrue(is_json(values), msg=repr(values))
        for values in ([], [b""], [b"text/plain"], [b"application/json"] * 2):
            self.assertFalse(is_json(values), msg=repr(values))

    def test_reply(self) -> None:
        """h11 parses a local reply; a reply to HEAD has the length but not the body."""
        body = jsend_error("x")
        for method, persistent in ((b"GET", True), (b"GET", False), (b"HEAD", True)):
            connection = h11.Connection(h11.CLIENT)
            connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
            connection.send(h11.EndOfMessage())
            bodyless = method == b"HEAD"
            connection.receive_data(local_reply(503, body, (), bodyless, persistent, 0.0))
            response = connection.next_event()
            assert isinstance(response, h11.Response)
            self.assertEqual(response.status_code, 503)
            self.assertIn((b"content-length", b"%d" % len(body)), list(response.headers))
            self.assertEqual((b"connection", b"close") in list(response.headers), not persistent)
            event = connection.next_event()
            if not bodyless:
                assert isinstance(event, h11.Data)
                self.assertEqual(bytes(event.data), body)
                event = connection.next_event()
            self.assertIsInstance(event, h11.EndOfMessage)
