"""Faults that a hostile reading found, kept so that they stay away."""

from __future__ import annotations

import h11
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.addresses import parse_listen_address, parse_server
from balancebeam.config.values import parse_seconds
from balancebeam.core.errors import RequestError, ResponseError
from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.body import MAX_CHUNK_LINE, MAX_TRAILERS, ChunkedReader
from balancebeam.protocols.http1.request_head import MAX_REQUEST_FIELDS, RequestHeadParser
from balancebeam.protocols.http1.response_head import MAX_RESPONSE_FIELDS, ResponseHeadParser
from balancebeam.proxy.forwarded_fields import build_forwarded_fields


class ParserRegressionTests(SynchronousTestCase):
    """Each of these was accepted, refused or lost once, and should not have been."""

    def test_fields_a_known_name_without_a_colon(self) -> None:
        memory = f.FieldLineCache(f.REQUEST_KINDS)
        memory.special_fields([b"Accept: x"])
        self.assertRaises(f.FieldError, memory.special_fields, [b"Accept"])

    def test_requests_a_known_name_without_a_colon(self) -> None:
        heads = RequestHeadParser()
        heads.parse(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\n")
        self.assertRaises(RequestError, heads.parse, b"GET / HTTP/1.1\r\nHost: a\r\nAccept\r\n")

    def test_responses_a_known_name_without_a_colon(self) -> None:
        heads = ResponseHeadParser()
        heads.parse(b"HTTP/1.1 200 OK\r\nServer: x\r\n")
        self.assertRaises(ResponseError, heads.parse, b"HTTP/1.1 200 OK\r\nServer\r\n")

    def test_requests_connect_in_origin_form(self) -> None:
        error = self.assertRaises(
            RequestError, RequestHeadParser().parse, b"CONNECT / HTTP/1.1\r\nHost: a\r\n"
        )
        self.assertEqual(error.status, 501)

    def test_forwarding_absolute_form_of_http_1_0_without_host(self) -> None:
        head = RequestHeadParser().parse(b"GET http://a/ HTTP/1.0\r\n")
        wire = head.forward_bytes + build_forwarded_fields(head, b"192.0.2.9", b"http", b"b", False)
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(wire)
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        self.assertEqual(dict(request.headers)[b"host"], b"a")

    def test_responses_too_many_fields_whatever_is_remembered(self) -> None:
        heads = ResponseHeadParser()
        data = b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * MAX_RESPONSE_FIELDS
        for _ in range(2):
            heads.parse(data)

    def test_requests_too_many_fields_with_keep_alive(self) -> None:
        data = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n"
        data += b"X: 1\r\n" * (MAX_REQUEST_FIELDS - 1)
        self.assertRaises(RequestError, RequestHeadParser().parse, data)

    def test_bodies_the_longest_lines_in_two_pieces(self) -> None:
        for wire in (
            b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nx\r\n0\r\n\r\n",
            b"0\r\nX: " + b"a" * (MAX_TRAILERS - 3) + b"\r\n\r\n",
        ):
            whole = ChunkedReader()
            whole.feed(wire)
            self.assertTrue(whole.complete)
            reader = ChunkedReader()
            place = wire.rindex(b"a") + 2  # Between CR and LF.
            reader.feed(wire[:place])
            reader.feed(wire[place:])
            self.assertTrue(reader.complete)

    def test_responses_a_date_that_connection_names(self) -> None:
        head = ResponseHeadParser().parse(b"HTTP/1.1 200 OK\r\nConnection: date\r\nDate: x\r\n")
        self.assertEqual(head.has_date, b"Date:" in head.forward_bytes)

    def test_responses_the_length_of_a_204(self) -> None:
        for data in (b"HTTP/1.1 204 X\r\nA: 1\r\n", b"HTTP/1.1 204 X\r\n"):
            heads = ResponseHeadParser()
            lengths = [heads.parse(data).length for _ in range(2)]
            self.assertEqual(lengths, [0, 0])

    def test_requests_an_empty_host_with_a_port(self) -> None:
        self.assertRaises(
            RequestError, RequestHeadParser().parse, b"GET http://:80/ HTTP/1.1\r\nHost: :80\r\n"
        )

    def test_addresses(self) -> None:
        for text in ("fe80::1:80", "http://0.0.0.0:80", "localhost:80:90"):
            self.assertRaises(ValueError, parse_listen_address, text)
        for text in ("a:1,", "010.0.0.1:80", "1.2.3.4.:80", "a..b:80"):
            self.assertRaises(ValueError, parse_server, text)

    def test_numbers(self) -> None:
        for text in ("1_0", " 10 ", "\uff11\uff10"):
            self.assertRaises(ValueError, parse_seconds, text)
