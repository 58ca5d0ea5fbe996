"""HTTP/1.1 bodies: framing, streaming, truncation and limits."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import (
    GET,
    OK,
    MemoryBalancer,
    Peer,
    head_and_body,
)


class BodyFramingTests(BalancerTestCase):
    """Framing of request and response bodies."""

    def test_chunked_request_is_reframed(self) -> None:
        """Chunk sizes, extensions and forbidden trailers of a request are not forwarded."""
        forwarded, _ = self.exchange(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"003;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n",
            OK,
        )
        self.assertTrue(
            forwarded.endswith(
                b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 5\r\n\r\n"
            ),
            forwarded,
        )

    def test_empty_chunked_request(self) -> None:
        """A chunked body without content is ended by its last chunk, whenever that arrives."""
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        forwarded, received = self.exchange(head + b"0\r\n\r\n", OK)
        self.assertTrue(forwarded.endswith(b"\r\n\r\n0\r\n\r\n"), forwarded)
        self.assertTrue(received.startswith(b"HTTP/1.1 200 OK\r\n"))
        balancer = self.balancer()
        client = balancer.client()
        client.send(head)
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"Transfer-Encoding: chunked\r\n\r\n"))
        client.send(b"0\r\n\r\n")
        self.assertEqual(server.received(), b"0\r\n\r\n")
        server.send(OK)

    def test_chunked_request_before_the_connection_exists(self) -> None:
        """Chunks that are received while the server is connected are sent with their end."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.send(b"2\r\nde\r\n", b"0\r\nX-Sum: 5\r\n\r\n")
        server = balancer.accept()
        body = head_and_body(server.received())[1]
        self.assertEqual(body, b"5\r\nabcde\r\n0\r\nX-Sum: 5\r\n\r\n")
        server.send(OK)

    def test_chunked_response_with_trailers(self) -> None:
        """Trailers of a chunked response are forwarded."""
        _, received = self.exchange(
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n",
        )
        lines, body = head_and_body(received)
        self.assertIn(b"Trailer: X-Sum", lines)
        self.assertEqual(body, b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n")

    def test_body_in_pieces(self) -> None:
        """Bodies are streamed in both directions as they arrive."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"\r\n\r\nab"))
        client.send(b"cd", b"ef")
        self.assertEqual(server.received(), b"cdef")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"gh", b"ijkl")
        self.assertTrue(client.received().endswith(b"\r\n\r\nghijkl"))

    def test_head_in_pieces(self) -> None:
        """Heads that arrive byte by byte are parsed."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(*(GET[i : i + 1] for i in range(len(GET))))
        server = balancer.accept()
        self.assertIn(b"X-Forwarded-For", server.received())
        server.send(*(OK[i : i + 1] for i in range(len(OK))))
        self.assertTrue(client.received().endswith(b"\r\n\r\nhello"))

    def test_responses_without_a_body(self) -> None:
        """Responses to HEAD, and 204 and 304, have no body, whatever their headers are."""
        cases = (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        )
        for method, response in cases:
            balancer = self.balancer()
            client = balancer.client()
            for _ in range(2):
                client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
                server = balancer.peers[-1] if balancer.connectors[1:] else None
                if server is None or server is client:
                    server = server_of(balancer)
                server.send(response)
                lines, body = head_and_body(client.received())
                self.assertEqual(body, b"", response)
                self.assertEqual(lines[0], response.split(b"\r\n")[0])
                self.assertEqual(b"Content-Length: 99" in lines, b"99" in response)
                self.assertNotIn(b"Transfer-Encoding: chunked", lines)
            self.assertEqual(len(balancer.connectors), 1, response)

    def test_close_delimited_response_to_http_1_0(self) -> None:
        """A close-delimited body closes the connection of an HTTP/1.0 client, keep-alive or not."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        server.half_close()
        lines, body = head_and_body(client.received())
        self.assertEqual(body, b"abc")
        self.assertIn(b"Connection: close", lines)
        self.assertTrue(client.transport.closing)

    def test_early_response(self) -> None:
        """A response before the end of the request body ends in a lingering close."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        server.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 403 No", b"no"))
        self.assertIn(b"Connection: close", lines)
        # The rest of the body is read and ignored.
        self.assertTrue(client.transport.write_closed)
        self.assertFalse(client.transport.closing)
        client.send(b"def")
        self.assertTrue(server.transport.aborted)
        client.half_close()
        self.assertTrue(client.transport.closing)

    def test_full_duplex(self) -> None:
        """Request and response bodies are streamed at the same time."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
        self.assertTrue(client.received().endswith(b"\r\n\r\n1\r\nA\r\n"))
        server.received()
        client.send(b"1\r\nb\r\n0\r\n\r\n")
        self.assertEqual(server.received(), b"1\r\nb\r\n0\r\n\r\n")
        server.send(b"1\r\nB\r\n0\r\n\r\n")
        self.assertEqual(client.received(), b"1\r\nB\r\n0\r\n\r\n")

    def test_truncated_body_with_content_length(self) -> None:
        """A truncated body with Content-Length ends in a close."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        server.half_close()
        self.assertTrue(client.received().endswith(b"\r\n\r\nabc"))
        self.assertTrue(client.transport.closing)

    def test_truncated_chunked_body_has_no_last_chunk(self) -> None:
        """A truncated chunked body ends in a close, without the last chunk."""
        for end in (Peer.half_close, Peer.reset):
            balancer = self.balancer()
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            end(server)
            self.assertTrue(client.received().endswith(b"\r\n\r\n3\r\nabc\r\n"))
            self.assertTrue(client.transport.closing)

    def test_truncated_close_delimited_body_ends_in_a_reset(self) -> None:
        """A truncated body without framing resets the client connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        server.reset()
        self.assertTrue(client.transport.aborted)

    def test_truncated_close_delimited_body_is_chunked_for_http_1_1(self) -> None:
        """A reset within a close-delimited body leaves out the last chunk."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        server.reset()
        self.assertTrue(client.received().endswith(b"\r\n\r\n3\r\nabc\r\n"))
        self.assertTrue(client.transport.closing)

    def test_body_too_large(self) -> None:
        """A request body above `max_body` is rejected with 413, and no server is connected."""
        for request in (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890",
        ):
            balancer = self.balancer(max_body=10)
            client = balancer.client()
            client.send(request)
            lines = self.assert_error(client.received(), 413)
            self.assertIn(b"Connection: close", lines)
            self.assertEqual(balancer.connectors, [])

    def test_invalid_chunk_after_valid_ones(self) -> None:
        """An invalid chunk is answered with 400 and resets the upstream connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        server = balancer.accept()
        client.send(b"+1\r\nb\r\n")
        self.assert_error(client.received(), 400)
        self.assertTrue(server.transport.aborted)
        self.assertNotIn(b"0\r\n\r\n", server.received())


def server_of(balancer: MemoryBalancer) -> Peer:
    """The server of the newest upstream connection, which is accepted if necessary."""
    if balancer.connectors[-1].state == "connecting":
        return balancer.accept()
    return balancer.peers[-1]
