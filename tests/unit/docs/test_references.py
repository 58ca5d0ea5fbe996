"""The names of modules, classes and files that the documents mention exist."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.helpers.documentation import DOCS

ROOT = DOCS.parent
PACKAGE = ROOT / "balancebeam"

# Generated from the messages, or written before the names of today.
GENERATED = ("message-conformance.rst", "changelog.rst")

_LITERAL = re.compile(r"``([\w.]+)(?:\([^`]*\))?``|:func:`!([\w.]+)`")
_LINK = re.compile(r"`[^`<]+ <([^`>:]+)>`_")
_CODE_IMPORT = re.compile(r"^ +from (balancebeam[\w.]*) import (.+)$", re.MULTILINE)


def pages() -> Iterator[Path]:
    """All documents that people write."""
    yield from (path for path in DOCS.glob("*.rst") if path.name not in GENERATED)
    yield from (ROOT / name for name in ("README.rst", "CONTRIBUTING.rst", "SECURITY.rst"))


def exists(name: str) -> bool:
    """Whether a dotted name below `balancebeam` is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            fields = getattr(found, "__attrs_attrs__", ())
            if not hasattr(found, part) and part not in [field.name for field in fields]:
                return False
            found = getattr(found, part, None)
        return True
    return False


class References(SynchronousTestCase):
    """What documents mention is there."""

    def test_names_in_the_package(self) -> None:
        """Literals such as ``net.poller.BatchPoller`` name something in the package."""
        packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
        checked = 0
        for page in pages():
            for match in _LITERAL.finditer(page.read_text(encoding="utf-8")):
                name = match[1] or match[2]
                first, _, rest = name.partition(".")
                if rest and first in packages and rest not in ("rst", "toml"):
                    name = f"balancebeam.{name}"
                elif first != "balancebeam" or rest in ("service", "socket", "tac"):
                    continue
                checked += 1
                self.assertTrue(exists(name), f"{page.name}: {name}")
        self.assertGreater(checked, 20)

    def test_imports_in_code(self) -> None:
        """What the code in the pages imports is there."""
        for page in pages():
            for module, names in _CODE_IMPORT.findall(page.read_text(encoding="utf-8")):
                for name in names.split(", "):
                    self.assertTrue(exists(f"{module}.{name}"), f"{page.name}: {module}.{name}")

    def test_links_to_files(self) -> None:
        """Relative links lead to files of the repository."""
        for page in pages():
            for target in _LINK.findall(page.read_text(encoding="utf-8")):
                if "/" in target or "." in target:
                    self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")
