"""Addresses as people write them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.addresses import (
    parse_listen_address,
    parse_server,
    parse_server_address,
    parse_tcp_address,
)
from balancebeam.core.addresses import (
    EndpointAddress,
    ListenAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from balancebeam.core.settings import ServerSettings


class TcpAddressTests(SynchronousTestCase):
    """`host:port` and `[v6]:port`."""

    def test_what_is_read(self) -> None:
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

    def test_the_same_address_is_the_same_text(self) -> None:
        for one, other in (
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
            ("[::ffff:192.0.2.1]:80", "[::ffff:c000:201]:80"),
            ("App.Example.ORG:80", "app.example.org:80"),
        ):
            self.assertEqual(parse_tcp_address(one), parse_tcp_address(other))

    def test_what_is_refused(self) -> None:
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
        for read in (parse_tcp_address, parse_listen_address, parse_server_address, parse_server):
            try:
                read(text)
            except ValueError as error:
                self.assertNotEqual(str(error), "")

    @settings(max_examples=100, deadline=None)
    @given(st.ip_addresses(), st.integers(1, 65535))
    def test_written_addresses_are_read_as_they_were(self, ip: object, port: int) -> None:
        address = TcpAddress(str(ip), port)
        self.assertEqual(parse_tcp_address(str(address)), address)
        self.assertEqual(parse_server_address(str(address)), address)
        self.assertEqual(parse_listen_address(str(address)), address)


class ListenAddressTests(SynchronousTestCase):
    """Where to listen."""

    def test_what_is_read(self) -> None:
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

    def test_tls_is_refused_by_name(self) -> None:
        for text in ("ssl:443:privateKey=k", "tls:443", "txacme:x:443"):
            error = self.assertRaises(ValueError, parse_listen_address, text)
            self.assertIn("TLS is not supported yet", str(error))

    def test_what_is_refused(self) -> None:
        for text in ("", "8080", "localhost", "unix:", "::1:80", "a:99999", "1.2.3:80"):
            error = self.assertRaises(ValueError, parse_listen_address, text)
            self.assertIn(repr(text), str(error))

    def test_a_path_has_to_fit_a_socket_address(self) -> None:
        longest = "unix:/" + "a" * 106
        self.assertEqual(parse_listen_address(longest), UnixAddress(longest[5:]))
        self.assertRaises(ValueError, parse_listen_address, longest + "a")
        # Octets count, not characters.
        self.assertRaises(ValueError, parse_listen_address, "unix:/" + "\u00e4" * 54)


class ServerAddressTests(SynchronousTestCase):
    """Where a server is."""

    def test_what_is_read(self) -> None:
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

    def test_what_is_refused(self) -> None:
        cases = {
            "https://app": "TLS to servers is not supported yet",
            "https://app:443": "TLS to servers is not supported yet",
            "http://app/path": "has a path",
            "http://app:80/path/": "has a path",
            "http://": "no address",
            "http://app?x": "no valid host",
            "http://app:": "no address",
            "http://user@app": "no address",
            "app": "no address",
            "app:0": "ports go from 1 to 65535",
            "http://app:0": "ports go from 1 to 65535",
            "app:65536": "no such port",
            "unix:relative": "no valid path",
            "unix:": "no valid path",
            "unix:/" + "a" * 107: "no valid path",
            "tcp:8080:x": "no address",
        }
        for text, why in cases.items():
            error = self.assertRaises(ValueError, parse_server_address, text)
            self.assertIn(why, str(error))


class ServerSettingsTests(SynchronousTestCase):
    """A server with its weight and role."""

    def test_what_is_read(self) -> None:
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
        }
        for text, server in cases.items():
            self.assertEqual(parse_server(text), server, msg=text)

    def test_what_is_refused(self) -> None:
        weight = "whole number from 0 to 256"
        cases = {
            "app:80,weight=257": weight,
            "app:80,weight=-1": weight,
            "app:80,weight=+1": weight,
            "app:80,weight=1.5": weight,
            "app:80,weight=x": weight,
            "app:80,weight= 1": weight,
            "app:80,weight=\u0663": weight,
            "app:80,weight=": "not known",
            "app:80,weight": "not known",
            "app:80,backup=1": "not known",
            "app:80,backup=": "not known",
            "app:80,Backup": "not known",
            "app:80,color=red": "'color=red' is not known",
            "app:80,,backup": "not known",
            "app:80,backup,backup": "says backup twice",
            "app:80,weight=1,weight=1": "says weight twice",
            ",weight=1": "no address",
            "app,weight=1": "no address",
        }
        for text, why in cases.items():
            error = self.assertRaises(ValueError, parse_server, text)
            self.assertIn(why, str(error))


class AddressRegressionTests(SynchronousTestCase):
    """Addresses that were accepted by mistake."""

    def test_malformed_addresses(self) -> None:
        """Mistyped addresses were taken for endpoint descriptions or names."""
        for text in ("fe80::1:80", "http://0.0.0.0:80", "localhost:80:90"):
            self.assertRaises(ValueError, parse_listen_address, text)
        for text in ("a:1,", "010.0.0.1:80", "1.2.3.4.:80", "a..b:80"):
            self.assertRaises(ValueError, parse_server, text)
