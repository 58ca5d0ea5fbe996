"""Route tables and matchers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.uri import normalize_path
from balancebeam.routing.matchers import HostPathMatcher, PathMatcher
from balancebeam.routing.route_table import Route, RouteTable


class RouteTableTests(SynchronousTestCase):
    """The first matching route decides; its target may be anything."""

    TABLE = RouteTable(
        "default",
        (
            Route(PathMatcher(b"/register"), "registration"),
            Route(HostPathMatcher("api.example.org", "/v1"), "first version"),
            Route(HostPathMatcher("*.example.org"), "any name"),
            Route(HostPathMatcher(None, "/static/"), "static"),
        ),
    )

    def test_find(self) -> None:
        """Host and path are normalized; without a match the default is the target."""
        for host, target, expected in (
            (b"a", b"/register", "registration"),
            (b"a", b"/register/x", "default"),
            (b"API.example.org:80", b"/v1?x", "first version"),
            (b"api.example.org", b"/v2/../%761/x", "first version"),
            (b"api.example.org", b"/v10", "any name"),
            (b"www.example.org", b"/v1", "any name"),
            (b"example.org", b"/v1", "default"),
            (b"a", b"/static", "static"),
            (b"a", b"//static/x", "static"),
            (None, b"*", "default"),
        ):
            self.assertEqual(self.TABLE.find(host, target), expected, msg=f"{host!r} {target!r}")

    def test_targets(self) -> None:
        """`targets` has the default first, and then the target of each route."""
        self.assertEqual(
            list(self.TABLE.targets),
            ["default", "registration", "first version", "any name", "static"],
        )


class HostPathMatcherTests(SynchronousTestCase):
    """Conditions on host and path."""

    def test_everything_matches_by_default(self) -> None:
        """Without arguments, and with the path /, every request matches."""
        for matcher in (HostPathMatcher(), HostPathMatcher(path="/")):
            for target in (b"/", b"*", b"/x"):
                self.assertTrue(matcher.matches(b"a", normalize_path(target)), msg=repr(target))

    def test_invalid(self) -> None:
        """Invalid hosts and paths are rejected with the expected form."""
        for host in ("", "a b", "*", "*.", "a..b", "http://a", "a:80"):
            with self.assertRaises(ValueError, msg=host) as caught:
                HostPathMatcher(host)
            self.assertIn("expected a name such as", str(caught.exception))
        for path in ("", "v1", "/v1?x", "/v1#x"):
            with self.assertRaises(ValueError, msg=path) as caught:
                HostPathMatcher(None, path)
            self.assertIn("expected a path such as", str(caught.exception))
