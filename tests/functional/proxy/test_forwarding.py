"""The fields about the client that servers receive: Forwarded and X-Request-Id."""

from __future__ import annotations

from balancebeam.core.settings import ForwardingSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK


def request(*lines: str) -> bytes:
    """A request with these additional field lines."""
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode()


class ForwardedFieldsTests(BalancerTestCase):
    """Forwarding settings of a frontend."""

    def forwarded(self, *lines: str, trusted: bool = False, **style: object) -> list[bytes]:
        """The lines of a request as the server receives them."""
        balancer = self.balancer(
            forwarding=ForwardingSettings(**style),  # type: ignore[arg-type]
            trusted_proxies=("192.0.2.1",) if trusted else (),
        )
        balancer.client().send(request(*lines))
        return balancer.accept().received().split(b"\r\n")

    def test_forwarded_and_x_forwarded(self) -> None:
        """Forwarded is sent in addition to X-Forwarded-For."""
        lines = self.forwarded(forwarded=True)
        self.assertIn(b'Forwarded: for=192.0.2.1;host="a";proto=http', lines)
        self.assertIn(b"X-Forwarded-For: 192.0.2.1", lines)

    def test_forwarded_without_x_forwarded(self) -> None:
        """Forwarded is sent instead of X-Forwarded-*, which are removed."""
        lines = self.forwarded("X-Forwarded-For: 9.9.9.9", x_forwarded=False, forwarded=True)
        self.assertIn(b'Forwarded: for=192.0.2.1;host="a";proto=http', lines)
        self.assertFalse([line for line in lines if line.lower().startswith(b"x-forwarded")])

    def test_forwarded_of_trusted_proxies_is_continued(self) -> None:
        """A received Forwarded is continued if the peer is trusted, and replaced if not."""
        received = "Forwarded: for=203.0.113.7"
        element = b'for=192.0.2.1;host="a";proto=http'
        self.assertIn(
            b"Forwarded: for=203.0.113.7, " + element,
            self.forwarded(received, trusted=True, forwarded=True),
        )
        lines = self.forwarded(received, forwarded=True)
        self.assertEqual(
            [b"Forwarded: " + element], [n for n in lines if n.startswith(b"Forwarded")]
        )

    def test_ipv6_is_quoted(self) -> None:
        """IPv6 addresses are quoted in Forwarded."""
        balancer = self.balancer(forwarding=ForwardingSettings(forwarded=True))
        balancer.client("2001:db8::1").send(GET)
        self.assertIn(b'for="[2001:db8::1]"', balancer.accept().received())

    def test_fields_are_forwarded_by_default(self) -> None:
        """By default Forwarded and X-Request-Id are forwarded unchanged."""
        lines = self.forwarded("Forwarded: for=203.0.113.7", "X-Request-Id: abc")
        self.assertIn(b"Forwarded: for=203.0.113.7", lines)
        self.assertIn(b"X-Request-Id: abc", lines)

    def request_ids(self, lines: list[bytes]) -> list[bytes]:
        """The values of X-Request-Id in a request."""
        fields = [line.partition(b": ") for line in lines]
        return [value for name, _, value in fields if name.lower() == b"x-request-id"]

    def test_request_ids(self) -> None:
        """A request id is generated, or kept if there is exactly one."""
        (generated,) = self.request_ids(self.forwarded(request_id="keep"))
        self.assertRegex(generated, rb"\A[0-9a-f]{26}\Z")
        received = "x-request-id: abc"
        self.assertEqual(self.request_ids(self.forwarded(received, request_id="keep")), [b"abc"])
        (generated,) = self.request_ids(self.forwarded(received, request_id="make"))
        self.assertRegex(generated, rb"\A[0-9a-f]{26}\Z")
        (generated,) = self.request_ids(self.forwarded("X-Request-Id:", request_id="keep"))
        self.assertTrue(generated)
        lines = self.forwarded("X-Request-Id: a", "X_Request_Id: b", request_id="keep")
        self.assertFalse([line for line in lines if line.startswith(b"X_")])
        (generated,) = self.request_ids(lines)
        self.assertEqual(len(generated), 26)

    def test_request_ids_differ(self) -> None:
        """Every request has another generated id."""
        balancer = self.balancer(forwarding=ForwardingSettings(request_id="make"))
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        request_ids = set()
        for _ in range(5):
            request_ids.update(self.request_ids(server.received().split(b"\r\n")))
            server.send(OK)
            client.send(GET)
        self.assertEqual(len(request_ids), 5)
        server.send(OK)


class ViaTests(BalancerTestCase):
    """`via` of a frontend, for both directions."""

    def messages(self, via: object, sent: bytes, answer: bytes) -> tuple[list[bytes], list[bytes]]:
        """The Via lines that the server and the client receive."""
        balancer = self.balancer(forwarding=ForwardingSettings(via=via))  # type: ignore[arg-type]
        client = balancer.client()
        client.send(sent)
        server = balancer.accept()
        request_head = server.received()
        server.send(answer)
        received = (request_head, client.received())
        self.assertTrue(all(b"\r\n\r\n" in message for message in received), received)
        forwarded, returned = (
            [line for line in message.split(b"\r\n") if line.lower().startswith(b"via")]
            for message in received
        )
        return forwarded, returned

    def test_via(self) -> None:
        """The default, another name, and no Via; in short and chunked responses."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        for sent in (GET, request("Connection: close"), request("TE: trailers")):
            for answer in (OK, chunked):
                for via, expected in (
                    (True, [b"Via: 1.1 balancebeam"]),
                    ("edge", [b"Via: 1.1 edge"]),
                    (False, []),
                ):
                    self.assertEqual(self.messages(via, sent, answer), (expected, expected), via)

    def test_no_added_fields_at_all(self) -> None:
        """A head to which nothing is added is complete."""
        settings = ForwardingSettings(x_forwarded=False, via=False)
        balancer = self.balancer(forwarding=settings)
        balancer.client().send(GET)
        head = balancer.accept().received()
        self.assertEqual((head.count(b"\r\n\r\n"), head[-4:]), (1, b"\r\n\r\n"))

    def test_via_of_other_proxies_is_forwarded(self) -> None:
        """Without a Via of its own, the balancer forwards the Via of others."""
        answer = OK.replace(b"\r\n", b"\r\nVia: 1.1 b\r\n", 1)
        lines = self.messages(False, request("Via: 1.1 a"), answer)
        self.assertEqual(lines, ([b"Via: 1.1 a"], [b"Via: 1.1 b"]))
