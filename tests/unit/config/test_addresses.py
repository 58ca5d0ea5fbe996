"""Parsers of addresses of listeners and servers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.addresses import (
    check_scheme,
    parse_bind_address,
    parse_listen_address,
    parse_server,
    parse_server_address,
    parse_server_url,
    parse_tcp_address,
    tls_scheme,
)
from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ProxyProtocolAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import ServerSettings


class TcpAddressTests(SynchronousTestCase):
    """`host:port` and `[v6]:port`."""

    def test_valid(self) -> None:
        """Names, IPv4 addresses and bracketed IPv6 addresses with a port are accepted."""
        cases = {
            "127.0.0.1:8080": TcpAddress("127.0.0.1", 8080),
            "localhost:1": TcpAddress("localhost", 1),
            "a-b.example.org.:65535": TcpAddress("a-b.example.org.", 65535),
            "my_service:80": TcpAddress("my_service", 80),
            "[::1]:80": TcpAddress("::1", 80),
            "[2001:db8::1]:0": TcpAddress("2001:db8::1", 0),
            "[fe80::1%eth0]:80": TcpAddress("fe80::1%eth0", 80),
        }
        for text, address in cases.items():
            self.assertEqual(parse_tcp_address(text), address, msg=text)
            self.assertEqual(str(address), text)

    def test_equal_addresses_compare_equal(self) -> None:
        """IPv6 addresses have one canonical form, and host names are in lower case."""
        for first, second in (
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:192.0.2.1]:80", "[::ffff:c000:201]:80"),
            ("App.Example.ORG:80", "app.example.org:80"),
        ):
            self.assertEqual(parse_tcp_address(first), parse_tcp_address(second))

    def test_invalid(self) -> None:
        """Anything else is rejected; the message has the text."""
        cases = [
            "",
            "a",
            ":80",
            "a:",
            "a:x",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:123456",
            "a:8 0",
            "a b:80",
            "a:80 ",
            " a:80",
            "a:80\n",
            "a:\u0668\u0660",
            "\u00e4:80",
            "a@b:80",
            "a/b:80",
            "-a:80",
            "a-:80",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[]:80",
            "[a.example]:80",
            "[1.2.3.4]:80",
            "[::1::2]:80",
            "[12345::]:80",
            "256.0.0.1:80",
            "1.2.3:80",
            "1.2.3.4.5:80",
            "1.2.3.1000:80",
            "1..2.3:80",
            "a.1:80",
            "80:80",
        ]
        for text in cases:
            error = self.assertRaises(ValueError, parse_tcp_address, text)
            self.assertIn(repr(text), str(error))

    @settings(max_examples=200, deadline=None)
    @given(st.one_of(st.text(max_size=20), st.text("[]:.%/a1,", max_size=12)))
    def test_any_text_is_an_address_or_a_value_error(self, text: str) -> None:
        """No text makes a parser fail in another way than with a `ValueError` with a message."""
        for parse in (parse_tcp_address, parse_listen_address, parse_server_address, parse_server):
            try:
                parse(text)
            except ValueError as error:
                self.assertNotEqual(str(error), "")

    @settings(max_examples=100, deadline=None)
    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_text_of_an_address_is_parsed_as_that_address(self, ip: object, port: int) -> None:
        """The text of an address with any IP address results in an equal address."""
        address = TcpAddress(str(ip), port)
        self.assertEqual(parse_tcp_address(str(address)), address)
        self.assertEqual(parse_server_address(str(address)), address)
        self.assertEqual(parse_listen_address(str(address)), address)


class ListenAddressTests(SynchronousTestCase):
    """Addresses of listeners."""

    def test_valid(self) -> None:
        """TCP addresses, Unix sockets and Twisted endpoint descriptions are accepted."""
        cases: dict[str, ListenAddress] = {
            "0.0.0.0:1100": TcpAddress("0.0.0.0", 1100),
            "localhost:0": TcpAddress("localhost", 0),
            "[::]:1100": TcpAddress("::", 1100),
            "unix:/run/bb.sock": UnixAddress("/run/bb.sock"),
            "unix:/run/bb.sock:mode=660": EndpointAddress("unix:/run/bb.sock:mode=660"),
            "tcp:8080": EndpointAddress("tcp:8080"),
            "tcp:port=80:interface=127.0.0.1": EndpointAddress("tcp:port=80:interface=127.0.0.1"),
            "tcp6:8080": EndpointAddress("tcp6:8080"),
            "systemd:domain=INET:index=0": EndpointAddress("systemd:domain=INET:index=0"),
            "custom:x=1": EndpointAddress("custom:x=1"),
        }
        for text, address in cases.items():
            self.assertEqual(parse_listen_address(text), address, msg=text)
            self.assertEqual(str(address), text)

    def test_port_alone(self) -> None:
        """A port alone stands for all addresses of a frontend."""
        for text in ("8080", ":8080"):
            self.assertEqual(parse_bind_address(text), TcpAddress("0.0.0.0", 8080))
        for text in ("65536", ":99999", "::8080", "808080", ":", "", "haproxy:80"):
            self.assertRaises(ValueError, parse_bind_address, text)

    def test_tls_endpoints(self) -> None:
        """TLS endpoints are rejected; the message has the settings of TLS."""
        for text in ("ssl:443:privateKey=k", "tls:443", "txacme:x:443"):
            error = self.assertRaises(ValueError, parse_listen_address, text)
            self.assertIn("expected one without TLS", str(error))
            self.assertIn("[frontend.tls] or --tls", str(error))

    def test_proxy_protocol(self) -> None:
        """The prefix `haproxy:` is accepted once, before plain addresses and endpoints."""
        cases: dict[str, TcpAddress | UnixAddress | EndpointAddress] = {
            "haproxy:127.0.0.1:80": TcpAddress("127.0.0.1", 80),
            "haproxy:unix:/a": UnixAddress("/a"),
            "haproxy:tcp:80": EndpointAddress("tcp:80"),
        }
        for text, address in cases.items():
            self.assertEqual(parse_listen_address(text), ProxyProtocolAddress(address))
            self.assertEqual(str(parse_listen_address(text)), text)
        for text, part in (
            ("haproxy:haproxy:a:80", "haproxy: once"),
            ("haproxy:stdio:", "'stdio:'"),
            ("haproxy:custom:x=1", "tcp:, tcp6:, unix: or systemd:"),
        ):
            error = self.assertRaises(ValueError, parse_listen_address, text)
            self.assertIn(part, str(error))

    def test_invalid(self) -> None:
        """Incomplete and malformed addresses are rejected; the message has the text."""
        for text in ("", "8080", "localhost", "unix:", "::1:80", "a:99999", "1.2.3:80"):
            error = self.assertRaises(ValueError, parse_listen_address, text)
            self.assertIn(repr(text), str(error))

    def test_length_of_unix_paths(self) -> None:
        """The path of a Unix socket has at most 107 bytes, as sun_path has 108 with the NUL."""
        longest = "unix:/" + "a" * 106
        self.assertEqual(parse_listen_address(longest), UnixAddress(longest[5:]))
        self.assertRaises(ValueError, parse_listen_address, longest + "a")
        # 54 characters, but 108 bytes in UTF-8.
        self.assertRaises(ValueError, parse_listen_address, "unix:/" + "\u00e4" * 54)


class ServerAddressTests(SynchronousTestCase):
    """Addresses of servers."""

    def test_valid(self) -> None:
        """TCP addresses, Unix sockets and HTTP URLs without a path are accepted."""
        cases: dict[str, ServerAddress] = {
            "127.0.0.1:8080": TcpAddress("127.0.0.1", 8080),
            "app:8080": TcpAddress("app", 8080),
            "[::1]:8080": TcpAddress("::1", 8080),
            "unix:/run/app.sock": UnixAddress("/run/app.sock"),
            "unix:/run/a:b.sock": UnixAddress("/run/a:b.sock"),
            "http://app": TcpAddress("app", 80),
            "http://app/": TcpAddress("app", 80),
            "http://app:8080": TcpAddress("app", 8080),
            "http://app:8080/": TcpAddress("app", 8080),
            "http://[::1]": TcpAddress("::1", 80),
            "http://[::1]:8080/": TcpAddress("::1", 8080),
        }
        for text, address in cases.items():
            self.assertEqual(parse_server_address(text), address, msg=text)

    def test_text_for_the_configuration(self) -> None:
        """`as_config` returns a text of the same address, also for a host with the name unix."""
        for text in ("app:80", "[::1]:80", "unix:/run/app.sock", "http://unix:80"):
            address = parse_server_address(text)
            self.assertEqual(address.as_config(), text)
            self.assertEqual(parse_server_address(address.as_config()), address)

    def test_invalid(self) -> None:
        """Anything else is rejected with what is expected, and so is TLS."""
        cases = {
            "https://app": "expected one without TLS, app:443",
            "tls://app:444": "expected one without TLS, app:444",
            "http://app/path": "without a path",
            "http://app:80/path/": "without a path",
            "http://": "expected host:port",
            "http://app?x": "expected a host name or an IP address",
            "http://app:": "expected host:port",
            "http://user@app": "expected host:port",
            "app": "expected host:port",
            "app:0": "a port from 1 to 65535",
            "http://app:0": "a port from 1 to 65535",
            "app:65536": "a port from 0 to 65535",
            "unix:relative": "expected unix:/path",
            "unix:": "expected unix:/path",
            "unix:/" + "a" * 107: "at most 107 bytes",
            "tcp:8080:x": "expected host:port",
        }
        for text, part in cases.items():
            error = self.assertRaises(ValueError, parse_server_address, text)
            self.assertIn(part, str(error))


class ServerUrlTests(SynchronousTestCase):
    """Addresses of servers with a scheme."""

    def test_tls(self) -> None:
        """The schemes `https` and `tls` are TLS; only `https` has a default port."""
        app = TcpAddress("app", 443)
        cases: dict[str, tuple[ServerAddress, bool, str | None]] = {
            "https://app": (app, True, "https"),
            "https://App:443/": (app, True, "https"),
            "https://[::1]": (TcpAddress("::1", 443), True, "https"),
            "https://unix:80": (TcpAddress("unix", 80), True, "https"),
            "tls://app:5432": (TcpAddress("app", 5432), True, "tls"),
            "tls://[::1]:443": (TcpAddress("::1", 443), True, "tls"),
            "http://app:443": (app, False, "http"),
            "app:443": (app, False, None),
            "unix:/x": (UnixAddress("/x"), False, None),
        }
        for text, (address, tls, scheme) in cases.items():
            server = parse_server_url(text)
            self.assertEqual(server, ServerSettings(address, tls=tls), msg=text)
            self.assertEqual(server.source_scheme, scheme)

    def test_invalid(self) -> None:
        """Addresses without a host, with a path or an unknown scheme are rejected."""
        cases = {
            "https://app/path": "expected https://host:port without a path",
            "https://": "expected host:port",
            "https://app:0": "a port from 1 to 65535",
            "https://app:65536": "a port from 0 to 65535",
            "https://user@app": "expected host:port",
            "https://app?x": "expected a host name or an IP address",
            "https://unix:/x": "without a path",
            "tls://app": "expected tls://host:port",
            "tls://app:1/path": "expected tls://host:port without a path",
            "tls:app:1": "expected host:port",
            "HTTPS://app": "expected host:port",
            "ftp://app:21": "expected host:port",
        }
        for text, part in cases.items():
            error = self.assertRaises(ValueError, parse_server_url, text)
            self.assertIn(part, str(error), msg=text)

    def test_scheme_of_the_mode(self) -> None:
        """TLS has the scheme `https` in mode "http", and `tls` in mode "tcp"."""
        self.assertEqual((tls_scheme("http"), tls_scheme("tcp")), ("https", "tls"))
        for text in ("app:1", "http://app:1", "unix:/x"):
            for mode in ("http", "tcp"):
                check_scheme(parse_server_url(text), mode)
        check_scheme(parse_server_url("https://app"), "http")
        check_scheme(parse_server_url("tls://app:1"), "tcp")
        for text, mode, expected in (
            ("https://app", "tcp", 'expected tls://app:443 in mode "tcp"'),
            ("tls://[::1]:1", "http", 'expected https://[::1]:1 in mode "http"'),
        ):
            error = self.assertRaises(ValueError, check_scheme, parse_server_url(text), mode)
            self.assertIn(expected, str(error))


class ServerSettingsTests(SynchronousTestCase):
    """Servers with options, as in `--upstream`."""

    def test_valid(self) -> None:
        """Weight and backup follow the address in any order."""
        address = TcpAddress("app", 80)
        cases = {
            "app:80": ServerSettings(address, 1, False),
            "app:80,weight=5": ServerSettings(address, 5, False),
            "app:80,weight=0": ServerSettings(address, 0, False),
            "app:80,weight=256": ServerSettings(address, 256, False),
            "app:80,backup": ServerSettings(address, 1, True),
            "app:80,backup,weight=2": ServerSettings(address, 2, True),
            "http://app,weight=2,backup": ServerSettings(address, 2, True),
            "unix:/a,weight=3": ServerSettings(UnixAddress("/a"), 3, False),
            "https://app:80,weight=2,proxy=v2": ServerSettings(
                address, 2, proxy_protocol=2, tls=True
            ),
            "tls://app:80,backup": ServerSettings(address, backup=True, tls=True),
        }
        for text, server in cases.items():
            self.assertEqual(parse_server(text), server, msg=text)

    def test_invalid(self) -> None:
        """Unknown, malformed and repeated options are rejected with what is expected."""
        weight = "whole number from 0 to 256"
        cases = {
            "app:80,weight=257": weight,
            "app:80,weight=-1": weight,
            "app:80,weight=+1": weight,
            "app:80,weight=1.5": weight,
            "app:80,weight=x": weight,
            "app:80,weight= 1": weight,
            "app:80,weight=\u0663": weight,
            "app:80,weight=": "expected weight=N, backup",
            "app:80,weight": "expected weight=N, backup",
            "app:80,backup=1": "expected weight=N, backup",
            "app:80,backup=": "expected weight=N, backup",
            "app:80,Backup": "expected weight=N, backup",
            "app:80,color=red": "invalid option 'color=red'",
            "app:80,,backup": "expected weight=N, backup",
            "app:80,backup,backup": "expected backup once",
            "app:80,weight=1,weight=1": "expected weight once",
            ",weight=1": "expected host:port",
            "app,weight=1": "expected host:port",
        }
        for text, part in cases.items():
            error = self.assertRaises(ValueError, parse_server, text)
            self.assertIn(part, str(error))


class AddressRegressionTests(SynchronousTestCase):
    """Addresses that were accepted by mistake."""

    def test_malformed_addresses(self) -> None:
        """Mistyped addresses were taken for endpoint descriptions or names."""
        for text in ("fe80::1:80", "http://0.0.0.0:80", "localhost:80:90"):
            self.assertRaises(ValueError, parse_listen_address, text)
        for text in ("a:1,", "010.0.0.1:80", "1.2.3.4.:80", "a..b:80"):
            self.assertRaises(ValueError, parse_server, text)
