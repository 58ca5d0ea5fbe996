"""The pages under `docs/`, taken apart for the tests that compare them with the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

DOCS = Path(__file__).parents[2] / "docs"

_DIRECTIVE = re.compile(r"^\.\. (?P<kind>confval|option):: (?P<names>.+)$")
_FIELD = re.compile(r"^   :(?P<name>\w+): (?P<value>.+)$")
_EXAMPLE = re.compile(r"^   Example: ``(.+)``$", re.MULTILINE)


@frozen
class Entry:
    """
    One key or option of a reference page.

    Attributes:
        names: what stands behind `.. confval::` or `.. option::`.
        fields: the options of the directive, such as `type` and `default`.
        text: the paragraphs, indented as in the page.
    """

    names: str
    fields: Mapping[str, str]
    text: str

    @property
    def example(self) -> str | None:
        """The example of a key: a line of TOML."""
        match = _EXAMPLE.search(self.text)
        return match[1] if match else None


def read_page(name: str) -> str:
    """The source of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def entries(page: str, kind: str) -> list[Entry]:
    """All `kind` directives of a page, in order, with what is indented below them."""
    found: list[Entry] = []
    lines = read_page(page).splitlines()
    for number, line in enumerate(lines):
        match = _DIRECTIVE.match(line)
        if match is None or match["kind"] != kind:
            continue
        fields: dict[str, str] = {}
        text: list[str] = []
        for following in lines[number + 1 :]:
            if following and not following.startswith("   "):
                break
            field = _FIELD.match(following)
            if field is not None and not any(text):
                fields[field["name"]] = field["value"]
            else:
                text.append(following)
        found.append(Entry(match["names"], fields, "\n".join(text)))
    return found


def table_rows(page: str, heading: str) -> list[list[str]]:
    """The rows, without the header, of the first list-table behind the line `heading`."""
    text = read_page(page).partition(f"\n{heading}\n")[2]
    assert text, f"{page} has no heading {heading!r}"
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(".. list-table::"):
            inside = True
        elif inside and line.startswith("   * - "):
            rows.append([line[len("   * - ") :]])
        elif inside and line.startswith("     -"):
            rows[-1].append(line[len("     - ") :])
        elif inside and line.startswith("       "):
            rows[-1][-1] += " " + line.strip()
        elif inside and line and not line.startswith(" "):
            break
    return rows[1:]
