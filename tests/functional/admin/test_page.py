"""The files of the admin page, and their headers."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.page_files import load_page
from tests.helpers.admin import MemoryAdmin


class PageTests(SynchronousTestCase):
    """Requests for the page."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin()
        self.addCleanup(self.admin.stop)

    def test_policy(self) -> None:
        """Every file has a content security policy without exceptions."""
        for path in ("/", *(f"/page/{name}" for name in load_page())):
            fields = self.admin.request("GET", path).fields
            directives = dict(
                part.split(b" ", 1) for part in fields[b"content-security-policy"].split(b"; ")
            )
            self.assertEqual(
                directives,
                {
                    b"default-src": b"'none'",
                    b"script-src": b"'self'",
                    b"style-src": b"'self'",
                    b"connect-src": b"'self'",
                    b"img-src": b"'self'",
                    b"base-uri": b"'none'",
                    b"form-action": b"'none'",
                    b"frame-ancestors": b"'none'",
                },
            )
            self.assertEqual(fields[b"x-frame-options"], b"DENY")
            self.assertEqual(fields[b"x-content-type-options"], b"nosniff")
            self.assertEqual(fields[b"cache-control"], b"no-store")

    def test_content_types(self) -> None:
        """Each file has the content type that browsers require with nosniff."""
        for path, content_type in (
            ("/", b"text/html; charset=utf-8"),
            ("/page/style.css", b"text/css; charset=utf-8"),
            ("/page/main.js", b"text/javascript; charset=utf-8"),
            ("/page/icon.svg", b"image/svg+xml"),
        ):
            self.assertEqual(self.admin.request("GET", path).fields[b"content-type"], content_type)

    def test_other_files(self) -> None:
        """Only the files of the page are served."""
        for name in ("nothing.js", "..%2fapi.py", "..", "page_files.py", ".", "%00"):
            self.assertEqual(self.admin.request("GET", f"/page/{name}").status, 404, name)

    def test_references(self) -> None:
        """Every file that the page refers to exists, and every file is referred to."""
        files = load_page()
        texts = {name: file.content.decode() for name, file in files.items()}
        found = set(re.findall(r'"page/([^"]+)"', texts["index.html"]))
        for name, text in texts.items():
            if name.endswith(".js"):
                found |= set(re.findall(r'from "\./([^"]+)"', text))
        self.assertEqual(found, set(files) - {"index.html"})

    def test_elements(self) -> None:
        """Every element that the script looks up is in the page."""
        files = load_page()
        page = files["index.html"].content.decode()
        for name, file in files.items():
            for element in re.findall(r'byId\("([^"]+)"\)', file.content.decode()):
                self.assertIn(f'id="{element}"', page, name)

    def test_no_markup_from_values(self) -> None:
        """No script makes markup of texts, and nothing is inline or from another host."""
        for name, file in load_page().items():
            text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
            for forbidden in (
                *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("),
                *("http://", "https://", " style=", "<style", "onclick=", 'setAttribute("style"'),
            ):
                self.assertNotIn(forbidden, text, name)
