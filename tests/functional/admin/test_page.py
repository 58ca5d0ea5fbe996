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


def luminance(color: str) -> float:
    """Return the relative luminance of a color like #1a1f26, as WCAG 2.2 defines it."""
    values = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class ContrastTests(SynchronousTestCase):
    """The colors of the page, light and dark."""

    def test_text(self) -> None:
        """The contrast of every color of text with its backgrounds is at least 4.5:1."""
        style = load_page()["style.css"].content.decode()
        schemes = [
            dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
            for block in re.findall(r":root \{([^}]*)\}", style)
        ]
        self.assertEqual(len(schemes), 2)
        for colors in schemes:
            pairs = [
                (text, background)
                for text in ("text", "muted", "accent", "bad", "attention")
                for background in ("background", "surface", "raised")
            ]
            pairs += [("bad", "bad-surface"), ("attention", "attention-surface")]
            for text, background in pairs:
                low, high = sorted((luminance(colors[text]), luminance(colors[background])))
                self.assertGreaterEqual((high + 0.05) / (low + 0.05), 4.5, (text, background))
