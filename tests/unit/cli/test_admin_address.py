"""Address and token of the admin API."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancebeam.cli.admin_address import load_token, normalize_address, parse_admin_address
from balancebeam.cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "host_header"),
    [
        ("127.0.0.1:1101", "127.0.0.1", 1101, "", "127.0.0.1:1101"),
        ("lb.example:1", "lb.example", 1, "", "lb.example:1"),
        ("[::1]:65535", "::1", 65535, "", "[::1]:65535"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, "", "[fe80::1]:1"),
        ("http://127.0.0.1:1101/", "127.0.0.1", 1101, "", "127.0.0.1:1101"),
        ("http://localhost", "localhost", 80, "", "localhost:80"),
        ("http://[::1]", "::1", 80, "", "[::1]:80"),
        ("unix:/run/a b", "", 0, "/run/a b", "localhost"),
    ],
)
def test_admin_addresses(text: str, host: str, port: int, path: str, host_header: str) -> None:
    """An address is a host and a port, a Unix socket, or a URL without a path."""
    address = parse_admin_address(text)
    assert (address.host, address.port, address.path) == (host, port, path)
    assert address.host_header == host_header


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "1101", "a:0", "a:65536", "a:1/b", "unix:a", "ftp://a:1"),
        *("https://a:1", "a b:1", "a\r\nX: y:1", "http://a:1/path", "user@a:1", "\u00e4:1"),
    ],
)
def test_invalid_admin_addresses(text: str) -> None:
    """The error for an invalid address names the option."""
    with pytest.raises(UsageError) as caught:
        parse_admin_address(text)
    assert "--admin" in caught.value.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://10.0.0.1:80/", "10.0.0.1:80"),
        ("http://10.0.0.1", "10.0.0.1:80"),
        ("http://[::1]", "[::1]:80"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("unix:/a", "unix:/a"),
        ("http://10.0.0.1:80/path", "http://10.0.0.1:80/path"),
    ],
)
def test_normalized_addresses(text: str, expected: str) -> None:
    """A URL without a path becomes host and port; other text is unchanged."""
    assert normalize_address(text) == expected


def test_tokens(tmp_path: Path) -> None:
    """The token file takes precedence over the environment; surrounding blanks are removed."""
    file = tmp_path / "token"
    file.write_text("  sesame\n")
    assert load_token(str(file), "other") == "sesame"
    assert load_token(None, " other\n") == "other"
    assert load_token(None, None) is None
    assert load_token(None, "") is None


def test_invalid_tokens(tmp_path: Path) -> None:
    """The error for an invalid token names its source."""
    file = tmp_path / "token"
    for content in (b"", b" \n", b"two words", b"a\r\nb", b"\xff", b"a" * 5000):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="invalid token"):
            load_token(str(file), None)
    with pytest.raises(UsageError, match="BALANCEBEAM_TOKEN: invalid token"):
        load_token(None, "a b")
    with pytest.raises(UsageError, match="/nowhere: cannot be read: No such file"):
        load_token("/nowhere", None)
