"""Authorization of admin requests: host names, tokens and origins."""

from __future__ import annotations

import base64
import os
import tempfile
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.auth import Authorizer, RequestInfo
from balancebeam.admin.service import build_authorizer
from balancebeam.config.addresses import parse_listen_address
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminSettings, SecretSource

TOKEN = b"sesame"


class HostHeaderTests(SynchronousTestCase):
    """The Host header, against DNS rebinding."""

    def is_allowed(self, authorizer: Authorizer, host: str) -> bool:
        """Whether a request with this Host header is authorized."""
        return authorizer.authorize(RequestInfo([host])) is None

    def test_addresses_are_allowed(self) -> None:
        """An IP address is allowed, with or without a port."""
        authorizer = Authorizer(None, ())
        for host in ("127.0.0.1", "127.0.0.1:1101", "10.9.8.7", "[::1]", "[::1]:80", "127.0.0.1."):
            self.assertTrue(self.is_allowed(authorizer, host), host)

    def test_other_names_are_rejected(self) -> None:
        """Any other name, and anything but a host and a port, is rejected."""
        authorizer = Authorizer(None, ("admin.example",))
        for host in (
            *("evil.example", "admin.example.evil", "xadmin.example", "localhost", ""),
            *("user@127.0.0.1", "127.0.0.1:", "127.0.0.1:999999", "127.0.0.1:x", "127.0.0.1/"),
            *("127.1", "0x7f.0.0.1", "2130706433", "::1", "[evil]", "[]", "127.0.0.1, evil"),
            *("127.0.0.1 ", "127.0.0.1\xa0", "①27.0.0.1", "127.0.0.1\n"),
        ):
            self.assertFalse(self.is_allowed(authorizer, host), host)

    def test_allowed_names_are_normalized(self) -> None:
        """Case, port and a trailing dot of an allowed name do not matter."""
        authorizer = Authorizer(None, ("Admin.Example",))
        for host in ("admin.example", "ADMIN.example:1", "admin.example."):
            self.assertTrue(self.is_allowed(authorizer, host), host)

    def test_exactly_one_host_is_required(self) -> None:
        """A request without Host, or with several, is rejected with 403."""
        authorizer = Authorizer(None, ())
        for hosts in ([], ["127.0.0.1", "127.0.0.1"]):
            denied = authorizer.authorize(RequestInfo(hosts))
            assert denied is not None
            self.assertEqual(denied.status, 403)

    def test_localhost_is_allowed_on_loopback_only(self) -> None:
        """`localhost` is allowed only if the listener is bound to loopback."""
        token = SecretSource("t")
        for bind, allowed in (
            *(("127.0.0.1:1", True), ("127.8.8.8:1", True), ("[::1]:1", True)),
            *(("localhost:1", True), ("unix:/x", True), ("0.0.0.0:1", False)),
            *(("[::]:1", False), ("192.0.2.1:1", False), ("tcp:1", False)),
        ):
            authorizer = build_authorizer(AdminSettings(parse_listen_address(bind), token))
            request = RequestInfo(["localhost"], authorizations=["Bearer t"])
            self.assertEqual(authorizer.authorize(request) is None, allowed, bind)

    def test_name_of_bind_address_is_allowed(self) -> None:
        """The host name of the bind address is allowed."""
        authorizer = build_authorizer(AdminSettings(TcpAddress("lb.example", 1), SecretSource("t")))
        request = RequestInfo(["lb.example"], authorizations=["Bearer t"])
        self.assertIsNone(authorizer.authorize(request))


class TokenTests(SynchronousTestCase):
    """Bearer and Basic authentication."""

    def status(self, *authorizations: str) -> int:
        """The status of the rejection; 200 if the request is authorized."""
        request = RequestInfo(["127.0.0.1"], authorizations=authorizations)
        denied = Authorizer(TOKEN, ()).authorize(request)
        return 200 if denied is None else denied.status

    def test_bearer_token(self) -> None:
        """Only the exact token is accepted, in any case of the scheme."""
        self.assertEqual(self.status("Bearer sesame"), 200)
        self.assertEqual(self.status("bEARER   sesame "), 200)
        for invalid in (
            *("", "Bearer", "Bearer ", "sesame", "Basic sesame", "Bearer sesam", "Bearer sesamee"),
            *("Bearer\tsesame", "Bearer sesame, Bearer sesame", "Bearer SESAME", "Bearer s\u0435"),
            *("BearerX sesame", "Bearer ses\udc80ame", "Bearer " + "x" * 10000),
        ):
            self.assertEqual(self.status(invalid), 401, invalid)

    def test_basic_password(self) -> None:
        """Basic authentication takes the token as the password of any user."""

        def basic(credentials: bytes) -> str:
            """The value of Authorization for Basic credentials."""
            return f"Basic {base64.b64encode(credentials).decode()}"

        for valid in (b"me:sesame", b":sesame", "é:sesame".encode()):
            self.assertEqual(self.status(basic(valid)), 200, valid)
        self.assertEqual(self.status(basic(b":sesame").replace("Basic", "bASIC ")), 200)
        for invalid in (
            *(b"sesame", b"sesame:", b"me:sesam", b"me:x:sesame", b"me:sesame\n", b"", b":"),
            *(b"me:\xff\xfe", b":" + b"x" * 10000),
        ):
            self.assertEqual(self.status(basic(invalid)), 401, invalid)
        for no_password in (
            basic(b"me:sesame").replace("Basic", "Bearer"),
            basic(b"you:sesame").rstrip("="),
            *("Basic", "Basic ", "Basic me:sesame", "Basic !" + basic(b"me:sesame")[6:]),
            *("Basic \udc80", "Basic é"),
        ):
            self.assertEqual(self.status(no_password), 401, no_password)

    def test_exactly_one_authorization_is_required(self) -> None:
        """A request without Authorization, or with two, is rejected."""
        self.assertEqual(self.status(), 401)
        self.assertEqual(self.status("Bearer sesame", "Bearer sesame"), 401)

    def test_token_is_compared_in_constant_time(self) -> None:
        """`hmac.compare_digest` compares the token."""
        with mock.patch("balancebeam.admin.auth.hmac.compare_digest", return_value=True) as compare:
            self.assertEqual(self.status("Bearer other"), 200)
        compare.assert_called_once_with(b"other", TOKEN)

    def test_token_is_not_shown(self) -> None:
        """No `repr` shows the token."""
        authorizer = Authorizer(TOKEN, ())
        settings = AdminSettings(token=SecretSource("sesame"))
        for shown in (repr(authorizer), str(authorizer), repr(settings), repr(settings.token)):
            self.assertNotIn("sesame", shown)

    def test_challenges(self) -> None:
        """The rejection has a challenge for Bearer and one for Basic, in separate headers."""
        denied = Authorizer(TOKEN, ()).authorize(RequestInfo(["127.0.0.1"]))
        assert denied is not None
        names, challenges = zip(*denied.headers)
        self.assertEqual(set(names), {b"WWW-Authenticate"})
        self.assertEqual(
            [challenge.partition(b" ")[0] for challenge in challenges], [b"Bearer", b"Basic"]
        )

    def test_token_file_is_read_again(self) -> None:
        """A token file is read by every reload; an invalid one is not shown."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "token")
            settings = AdminSettings(token=SecretSource(file=path))
            for content in (b"one\n", b" two \r\n"):
                with open(path, "wb") as file:
                    file.write(content)
                token = content.strip().decode()
                request = RequestInfo(["127.0.0.1"], authorizations=[f"Bearer {token}"])
                self.assertIsNone(build_authorizer(settings).authorize(request))
            for invalid in (b"", b" \n", b"two words", b"caf\xc3\xa9", b"a\x00b", b"x" * 5000):
                with open(path, "wb") as file:
                    file.write(invalid)
                error = self.assertRaises(ValueError, build_authorizer, settings)
                self.assertNotIn("words", str(error))
            os.unlink(path)
            self.assertRaises(ValueError, build_authorizer, settings)

    def test_token_in_a_variable_is_not_utf8(self) -> None:
        """An environment variable that is not UTF-8 is an error that names only the variable."""
        with mock.patch.dict(os.environb, {b"BB_TOKEN": b"ab\xffcd"}):
            settings = AdminSettings(token=SecretSource(variable="BB_TOKEN"))
            error = self.assertRaises(ValueError, build_authorizer, settings)
        self.assertIn("BB_TOKEN", str(error))
        self.assertNotIn("xff", repr(error))


class CrossOriginTests(SynchronousTestCase):
    """Requests of a browser for pages of other origins."""

    def status(self, **headers: Any) -> int:
        """The status of the rejection; 200 if the request is authorized."""
        denied = Authorizer(None, ("localhost",)).authorize(
            RequestInfo(["localhost:1101"], **headers)
        )
        return 200 if denied is None else denied.status

    def test_origin(self) -> None:
        """Any other Origin than that of the listener is rejected."""
        self.assertEqual(self.status(origins=["http://localhost:1101"]), 200)
        self.assertEqual(self.status(origins=["HTTP://LOCALHOST:1101"]), 200)
        for origin in (
            *("null", "", "http://evil.example", "http://localhost", "http://localhost:1102"),
            *("file://", "localhost:1101", "http://localhost:1101.evil", "http://127.0.0.1:1101"),
        ):
            self.assertEqual(self.status(origins=[origin]), 403, origin)
        self.assertEqual(self.status(origins=["http://localhost:1101", "null"]), 403)

    def test_fetch_metadata(self) -> None:
        """Sec-Fetch-Site has to be none or same-origin."""
        for sites, status in (
            *((["none"], 200), (["same-origin"], 200), (["cross-site"], 403)),
            # Another port of the host is the same site, but may belong to another user.
            *((["same-site"], 403), (["?"], 403), (["none", "cross-site"], 403)),
        ):
            self.assertEqual(self.status(sites=sites), status, sites)

    def test_preflight(self) -> None:
        """A CORS preflight is rejected, even one of the own origin."""
        self.assertEqual(self.status(preflight=True), 403)
        self.assertEqual(self.status(preflight=True, origins=["http://localhost:1101"]), 403)


class ScriptTests(SynchronousTestCase):
    """Requests of the script of the page."""

    def test_challenges(self) -> None:
        """The script gets no challenge for Basic, for which a browser would show a dialog."""
        authorizer = Authorizer(b"sesame", ["localhost"])
        for script, schemes in ((False, [b"Bearer", b"Basic"]), (True, [b"Bearer"])):
            denied = authorizer.authorize(RequestInfo(hosts=["localhost"], script=script))
            assert denied is not None
            found = [value.split(b" ")[0] for _, value in denied.headers]
            self.assertEqual((denied.status, found), (401, schemes))
