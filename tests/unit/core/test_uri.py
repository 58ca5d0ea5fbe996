"""Normalization of paths and hosts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.uri import canonical_path, has_prefix, normalize_host, normalize_path


class PathTests(SynchronousTestCase):
    """Paths that servers may take for each other."""

    @settings(max_examples=80, deadline=None)
    @given(st.sampled_from((b"/v1", b"/v1/x", b"/v1/x/y", b"/v10", b"/v2/v1")), st.data())
    def test_disguised_path(self, target: bytes, data: st.DataObject) -> None:
        """Encoding, slashes and dot segments do not hide a prefix, nor make one."""
        expected = has_prefix(target, b"/v1")
        self.assertEqual(expected, target.startswith(b"/v1") and target != b"/v10")
        separators = st.sampled_from((b"/", b"/", b"//", b"/./", b"/x/../", b"/%2e/", b"%2F"))
        disguised = b""
        for name in target.split(b"/")[1:]:
            disguised += data.draw(separators)
            for byte in name:
                encoded = data.draw(st.booleans())
                disguised += b"%%%02x" % byte if encoded else bytes((byte,))
        disguised += data.draw(st.sampled_from((b"", b"?", b"?/..", b"/.", b"/x/..")))
        # A target begins with a slash.
        disguised = b"/" + disguised[3:] if disguised.startswith(b"%2F") else disguised
        self.assertEqual(has_prefix(disguised, b"/v1"), expected, msg=repr(disguised))
        self.assertEqual(canonical_path(disguised), target)

    def test_normalize_path(self) -> None:
        """The query is dropped, encoding decoded, slashes merged, dot segments removed."""
        for target, path in (
            (b"/v1/x", b"/v1/x"),
            (b"/v1?/x", b"/v1"),
            (b"/%761", b"/v1"),
            (b"//v1//x", b"/v1/x"),
            (b"/x/../v1/./y", b"/v1/y"),
            (b"/../v1", b"/v1"),
            (b"/v1;p/x", b"/v1;p/x"),
        ):
            self.assertEqual(normalize_path(target), path)


class HostTests(SynchronousTestCase):
    """Hosts that are the same."""

    def test_normalize_host(self) -> None:
        """Case, port, final dot and percent-encoding do not matter."""
        for authority in (
            b"a.example",
            b"A.Example",
            b"a.example:80",
            b"a.example.",
            b"%61.example",
        ):
            self.assertEqual(normalize_host(authority), b"a.example")
        self.assertEqual(normalize_host(b"[2001:DB8::1]:80"), b"[2001:db8::1]")
