"""Wording: names, docstrings, comments, messages and documents use the field's terms."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent

# Pronouns for people, verbs of speech, and pictures. A proxy has clients, servers,
# requests and connections; docs/glossary.rst has the terms.
FORBIDDEN = (
    *("who", "whom", "whoever", "nobody", "somebody", "everybody", "anybody"),
    *("someone", "everyone", "anyone", "those"),
    *("tell", "tells", "told", "hear", "hears", "heard", "ask", "asks", "asked", "asker"),
    *("wish", "wishes", "want", "wants", "wanted", "bequeath", "patience"),
    *("spine", "door", "doors", "room", "rooms", "desk", "urn"),
    *("successor", "successors", "predecessor", "predecessors"),
    *("s2", "s3", "s4"),
)

FORBIDDEN_PHRASES = ("let in", "lets in", "on trial", "goes on", "comes in", "as they like")

_WORDS = re.compile(rf"(?<![\w'])(?:{'|'.join((*FORBIDDEN, *FORBIDDEN_PHRASES))})(?!\w)")
_OCTETS = re.compile(r"\boctets?\b")
_PART = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

# Names of the standard library that contain a forbidden word.
FOREIGN_NAMES = ("SSLWantReadError", "SSLWantWriteError")

# RFCs say octet, and quotations of them stay as they are.
_QUOTATION = re.compile(r"RFC|\bOCTET\b")


def found_in_text(text: str) -> Iterator[str]:
    """The forbidden words in a piece of prose."""
    folded = re.sub(r"\s+", " ", text.lower())
    yield from _WORDS.findall(folded)
    if not _QUOTATION.search(text):
        yield from _OCTETS.findall(folded)


def found_in_name(name: str) -> Iterator[str]:
    """The forbidden words in an identifier, in snake_case or CamelCase."""
    if name in FOREIGN_NAMES:
        return
    for part in _PART.findall(name):
        if part.lower() in FORBIDDEN or _OCTETS.fullmatch(part.lower()):
            yield part


def found_in_python(source: str) -> Iterator[tuple[int, str]]:
    """Line numbers and forbidden words of names, comments and texts; bytes are wire data."""
    comment: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment.append((token.start[0], token.string.lstrip("#")))
            continue
        if token.type == tokenize.NL:
            continue
        if comment:
            text = " ".join(part for _, part in comment)
            for word in found_in_text(text):
                yield comment[0][0], word
            comment = []
        if token.type == tokenize.NAME:
            for word in found_in_name(token.string):
                yield token.start[0], word
        elif token.type == tokenize.STRING and not re.match(r"[rR]?[bB]", token.string):
            for word in found_in_text(token.string):
                yield token.start[0], word


def python_files() -> Iterator[Path]:
    """Every module of the package, the benchmark, the tests and the examples."""
    for folder in ("balancebeam", "bench", "docs", "tests", "twisted"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__):
                yield path


def documents() -> Iterator[Path]:
    """Every document."""
    yield from sorted(ROOT.glob("*.rst"))
    yield from sorted((ROOT / "docs").rglob("*.rst"))


class WordingTests(SynchronousTestCase):
    """Plain technical English."""

    def test_python_files(self) -> None:
        """No name, docstring, comment or message has a forbidden word."""
        found = [
            f"{path.relative_to(ROOT)}:{line}: {word}"
            for path in python_files()
            for line, word in found_in_python(path.read_text())
        ]
        self.assertEqual(found, [])

    def test_documents(self) -> None:
        """No document has a forbidden word."""
        found = [
            f"{path.relative_to(ROOT)}: {word}"
            for path in documents()
            for word in found_in_text(path.read_text())
        ]
        self.assertEqual(found, [])

    def test_words_are_found(self) -> None:
        """Names, comments, docstrings and messages are all searched; bytes are not."""
        source = (
            'def who_is():  # nobody\n    """The door."""\n    x = b"who"\n    wanted = "told"\n'
        )
        found = [word for _, word in found_in_python(source)]
        self.assertEqual(sorted(found), ["door", "nobody", "told", "wanted", "who"])

    def test_quotations_keep_octets(self) -> None:
        """`octet` is a word of RFCs, and stays in quotations of them."""
        self.assertEqual(list(found_in_text("RFC 9112, 2.2: a sequence of octets")), [])
        self.assertEqual(list(found_in_text("so many octets")), ["octets"])
