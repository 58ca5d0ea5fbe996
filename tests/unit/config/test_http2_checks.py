"""Rules of HTTP/2 and gRPC: `h2c`, `protocol` and `grpc`."""

from __future__ import annotations

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    HTTP1,
    HTTP2,
    HealthCheckSettings,
    PoolSettings,
    ServerSettings,
)
from tests.helpers.config import ONE_POOL, ConfigFileTestCase

TCP = "[frontend]\nmode = 'tcp'\n"


class FrontendRuleTests(ConfigFileTestCase):
    """`h2c` of a frontend."""

    def test_plain_http_frontends_only(self) -> None:
        """`h2c` is rejected with TLS and in TCP mode, also with its default value."""
        self.assertTrue(self.load("[frontend]\nh2c = true\n").frontends[0].h2c)
        self.assertFalse(self.load("[frontend]\n").frontends[0].h2c)
        self.assert_each_mistake(
            (
                ("[frontend]\nh2c = 1\n", 2, ["frontend.h2c", "true or false"]),
                (TCP + "h2c = true\n", 3, ["frontend.h2c", 'expected mode "http"']),
                (TCP + "h2c = false\n", 3, ["frontend.h2c", 'expected mode "http"']),
                (
                    "[frontend]\nh2c = true\n[frontend.tls]\nself_signed = true\n",
                    2,
                    ["frontend.h2c: not available with TLS", "expected alpn"],
                ),
                (
                    "[frontend]\nh2c = false\n[frontend.tls]\nself_signed = true\n",
                    2,
                    ["frontend.h2c: not available with TLS"],
                ),
            )
        )

    def test_tls_by_option(self) -> None:
        """An option that enables TLS contradicts `h2c` in the file."""
        (problem,) = self.option_problems(ONE_POOL + "[frontend]\nh2c = true\n", "--tls", "a.pem")
        self.assertIn("frontend web: h2c: not available with TLS", problem)


class PoolRuleTests(ConfigFileTestCase):
    """`protocol` of a pool and of its servers."""

    def test_protocols(self) -> None:
        """A server has the protocol of its pool unless it has one of its own."""
        (pool,) = self.load(
            "[pool]\nprotocol = 'h2'\nupstreams = ['a:1', 'b:1,protocol=http/1.1', "
            "{address = 'c:1', protocol = 'h2'}]\n"
        ).pools
        self.assertEqual([server.protocol for server in pool.servers], [None, HTTP1, HTTP2])
        self.assertEqual([pool.uses_http2(server) for server in pool.servers], [True, False, True])
        server = ServerSettings(TcpAddress("a", 1))
        self.assertFalse(PoolSettings().uses_http2(server))

    def test_mistakes(self) -> None:
        """Unknown protocols, and protocols of requests in TCP mode, are rejected."""
        self.assert_each_mistake(
            (
                ("[pool]\nprotocol = 'h3'\n", 2, ["pool.protocol", "'h3'", "http/1.1, h2"]),
                ("[pool]\nupstreams = ['a:1,protocol=h3']\n", 2, ["'protocol=h3'", "protocol=h2"]),
                (
                    "[pool]\nupstreams = [{address='a:1', protocol='x'}]\n",
                    2,
                    ["protocol", "http/1.1, h2"],
                ),
                (TCP + "[pool]\nprotocol = 'h2'\n", 4, ["pool.protocol", 'mode "http"']),
                (TCP + "[pool]\nprotocol = 'http/1.1'\n", 4, ["pool.protocol", 'mode "http"']),
                (
                    TCP + "[pool]\nupstreams = ['a:1',\n'b:1,protocol=h2']\n",
                    5,
                    ["protocol of b:1", 'expected mode "http"'],
                ),
                (TCP + "[pool]\n[pool.health]\ngrpc = ''\n", 5, ["pool.health.grpc", "http"]),
            )
        )


class GrpcCheckTests(ConfigFileTestCase):
    """`grpc` of health checks."""

    def test_service(self) -> None:
        """A check by gRPC has a service, or all of the server, and no path."""
        for name in ("my.package.Service", ""):
            text = f"[pool]\nprotocol = 'h2'\n[pool.health]\ngrpc = '{name}'\ninterval = 3\n"
            expected = HealthCheckSettings(None, 3.0, grpc=name)
            self.assertEqual(self.load(text).pools[0].active, expected)
        # The protocol of each server is enough.
        self.load("[pool]\nupstreams = ['a:1,protocol=h2']\n[pool.health]\ngrpc = ''\n")

    def test_mistakes(self) -> None:
        """Keys of GET requests, invalid names, and servers without HTTP/2, are rejected."""
        h2 = "[pool]\nprotocol = 'h2'\n[pool.health]\ngrpc = 'a.B'\n"
        self.assert_each_mistake(
            (
                (h2 + "path = '/health'\n", 5, ["pool.health.path", "not available with grpc"]),
                (h2 + "status = '200-299'\n", 5, ["pool.health.status", "not available with grpc"]),
                (h2.replace("a.B", "a b"), 4, ["grpc: invalid service 'a b'", "my.package"]),
                ("[pool]\n[pool.health]\ngrpc = 'a'\n", 3, ["grpc", 'protocol = "h2"']),
                (
                    "[pool]\nprotocol='h2'\nupstreams = ['a:1', 'b:1,protocol=http/1.1']\n"
                    "[pool.health]\ngrpc = 'a'\n",
                    5,
                    ["pool.health.grpc", "(b:1)", 'protocol = "h2"'],
                ),
                ("[pool]\nprotocol = 'h9'\n[pool.health]\ngrpc = 'a'\n", 2, ["pool.protocol"]),
            )
        )

    def test_path_by_option(self) -> None:
        """An option with the path of checks contradicts `grpc` in the file."""
        text = "[pool]\nupstreams = ['a:1,protocol=h2']\n[pool.health]\ngrpc = 'a'\n"
        (problem,) = self.option_problems(text, "--active-health-check-path", "/x")
        self.assertIn("pool app: health.path: not available with grpc", problem)


class SupportTests(ConfigFileTestCase):
    """Settings that every combination of frontend and pool may have."""

    def test_supported_settings(self) -> None:
        """HTTP/2 with clients and to servers is accepted."""
        tls = "[frontend]\nmode = '{}'\n[frontend.tls]\nself_signed = true\nalpn = 'h2'\n"
        self.parse(ONE_POOL + "[frontend]\nh2c = true\n")
        self.parse(ONE_POOL + tls.format("http"))
        self.parse("[pool]\nupstreams = ['a:1']\nprotocol = 'h2'\n")
        self.parse("[pool]\nupstreams = ['a:1,protocol=h2']\n")
        self.parse(ONE_POOL + tls.format("tcp"))
