"""Private names of Twisted: each exists, and no other is used."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

import balancebeam
from balancebeam.net._twisted import PRIVATE_NAMES

ROOT = Path(balancebeam.__file__).parent

# Twisted's names are in camelCase, this package's own names are not.
_CAMEL_CASE = re.compile(r"_[a-z]+[A-Z]\w*")

_KINDS = {
    "attribute": lambda value: not inspect.isroutine(value),
    "method": inspect.isfunction,
    "classmethod": lambda value: isinstance(value, classmethod),
}


def private_names_used() -> set[str]:
    """The camelCase names with a leading underscore of all modules."""
    names: set[str] = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
    return {name for name in names if _CAMEL_CASE.fullmatch(name)}


class PrivateNameTests(SynchronousTestCase):
    """The list in `balancebeam.net._twisted` against the installed Twisted."""

    def test_each_exists(self) -> None:
        """Each private name exists with the listed kind and default."""
        for private in PRIVATE_NAMES:
            owner: Any = namedAny(private.owner)
            text = f"{private.owner}.{private.name}"
            try:
                value = inspect.getattr_static(owner, private.name)
            except AttributeError:
                self.fail(f"{text} does not exist; it is {private.use}")
            self.assertTrue(_KINDS[private.kind](value), f"{text} is not of kind {private.kind}")
            if private.value:
                self.assertEqual(repr(value), private.value, text)

    def test_no_other_is_used(self) -> None:
        """Every private camelCase name in the package is in the list."""
        listed = {private.name for private in PRIVATE_NAMES}
        self.assertEqual(private_names_used() - listed, set())
