"""The lines of keys, tables and array elements of TOML documents."""

from __future__ import annotations

import re
import sys
import time
from random import Random
from typing import Any, Union

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.source_map import key_lines, line_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Path = tuple[Union[str, int], ...]

EXAMPLE = """\
# A comment [with] = "things"
[admin]
bind = "127.0.0.1:9000"  # [[no]]

[[frontend]]
bind = [
    "a:1",  # not ]

    "b:2",
]

    [frontend.timeouts]
    connect = 5

    [[frontend.route]]
    path = "/"
    [[frontend.route]]
    path = "/b"

[[frontend]]
timeouts.connect = 1
timeouts.idle = 2
[[frontend.route]]
path = "/c"

[[pool]]
upstreams = [{ address = "a:1" },
    { address = "b:1", weight = 3, at = [
        1, { deep = true },
    ] }, "c"]
"""


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Return the paths of all values in parsed data, except the root."""
    result = {path} if path else set()
    table = dict(enumerate(value)) if isinstance(value, list) else value
    if isinstance(table, dict):
        for key, child in table.items():
            result |= paths(child, (*path, key))
    return result


class ExampleTests(SynchronousTestCase):
    """Documents with the lines written down by hand."""

    def assert_lines(self, text: str, expected: dict[Path, int]) -> None:
        """Check the lines of all paths, with either line ending."""
        for version in (text, text.replace("\n", "\r\n")):
            lines = key_lines(version)
            self.assertEqual(lines, expected, msg=repr(version))
            self.assertEqual(set(lines), paths(tomllib.loads(version)), msg=repr(version))

    def test_configuration_file(self) -> None:
        """Headers, keys, inline tables and elements of a typical file have their lines."""
        lines = key_lines(EXAMPLE)
        for path, line in (
            (("admin",), 2),
            (("admin", "bind"), 3),
            (("frontend",), 5),
            (("frontend", 0), 5),
            (("frontend", 0, "bind"), 6),
            (("frontend", 0, "bind", 0), 7),
            (("frontend", 0, "bind", 1), 9),
            (("frontend", 0, "timeouts"), 12),
            (("frontend", 0, "timeouts", "connect"), 13),
            (("frontend", 0, "route"), 15),
            (("frontend", 0, "route", 0), 15),
            (("frontend", 0, "route", 1, "path"), 18),
            (("frontend", 1), 20),
            (("frontend", 1, "timeouts"), 21),
            (("frontend", 1, "timeouts", "idle"), 22),
            (("frontend", 1, "route", 0, "path"), 24),
            (("pool", 0, "upstreams"), 27),
            (("pool", 0, "upstreams", 0, "address"), 27),
            (("pool", 0, "upstreams", 1), 28),
            (("pool", 0, "upstreams", 1, "weight"), 28),
            (("pool", 0, "upstreams", 1, "at", 1, "deep"), 29),
            (("pool", 0, "upstreams", 2), 30),
        ):
            self.assertEqual(lines[path], line, msg=str(path))
        self.assertEqual(set(lines), paths(tomllib.loads(EXAMPLE)))

    def test_line_of_the_nearest_parent(self) -> None:
        """A path without a line has that of the nearest table or array around it, or 0."""
        lines = {("a",): 3, ("a", 0, "b"): 5}
        for path, line in (
            (("a",), 3),
            (("a", 0), 3),
            (("a", 0, "b"), 5),
            (("a", 0, "b", "c", 1), 5),
            (("b", "a"), 0),
            ((), 0),
        ):
            self.assertEqual(line_of(lines, path), line, msg=str(path))
        self.assertEqual(line_of({}, ("a",)), 0)

    def test_no_keys(self) -> None:
        """Blank lines and comments have no paths."""
        for text in ("", "\n", "# x", " \t\n\n# [x]\n"):
            self.assert_lines(text, {})

    def test_last_line_without_newline(self) -> None:
        """The last line need not end in a newline."""
        self.assert_lines("\na = 1", {("a",): 2})
        self.assert_lines("\n[a]", {("a",): 2})
        self.assert_lines("\n[[a]] # b", {("a",): 2, ("a", 0): 2})

    def test_keys(self) -> None:
        """Bare, quoted and dotted keys are found in pairs and in headers."""
        for name, parts in (
            ("a", ("a",)),
            ("1.2", ("1", "2")),
            ("-_", ("-_",)),
            ('"a.b"', ("a.b",)),
            ("'a'", ("a",)),
            ("''", ("",)),
            ('""', ("",)),
            ("a . 'b'\t.\"c\"", ("a", "b", "c")),
            (r'"\"]\u00e9\\#=".x', ('"]é\\#=', "x")),
            (r"'\u00e9\'", (r"\u00e9" + "\\",)),
            ("'\"' . \"'\"", ('"', "'")),
        ):
            prefixes: dict[Path, int] = {parts[:length]: 2 for length in range(1, len(parts) + 1)}
            element: dict[Path, int] = {(*parts, 0): 2, (*parts, 0, "z"): 3}
            self.assert_lines(f"\n {name} = 1\n", prefixes)
            self.assert_lines(f"\n{name}=1 # x\n", prefixes)
            self.assert_lines(f"\n\t[ {name}\t] # x\nz = 1", {**prefixes, (*parts, "z"): 3})
            self.assert_lines(f"\n[[{name}]]\nz = 1", {**prefixes, **element})

    def test_values(self) -> None:
        """Strings, arrays and inline tables end where they end, whatever they contain."""
        for value in (
            "1979-05-27 07:32:00Z",
            "-1.5e3",
            "nan",
            '""',
            "''",
            r'"# \" ] } , \\"',
            r"'# ] } , \'",
            '"""\n"" [[x]]\ny = 1 \\\n\\""" # """',
            '"""a""b"""""',
            '""""""',
            '"""\\\\"""',
            "'''\n'' [[x]]\ny = 1 \\'''",
            "'''a''b'''''",
            "''''''",
            "[]",
            "{}",
            "[\n]",
        ):
            after = 2 + value.count("\n")
            self.assert_lines(f"\na = {value}\t# ,x] }}\nb = 1", {("a",): 2, ("b",): after + 1})
            self.assert_lines(
                f"\na = [{value}, {value}]",
                {("a",): 2, ("a", 0): 2, ("a", 1): after},
            )
            self.assert_lines(
                f"\na = {{b.c = {value},d={value} }}",
                {("a",): 2, ("a", "b"): 2, ("a", "b", "c"): 2, ("a", "d"): after},
            )

    def test_header_after_its_subtable(self) -> None:
        """A table has the line of its header, even if a table within it comes first."""
        self.assert_lines("[a.b]\n[a]\nc = 1\n", {("a",): 2, ("a", "b"): 1, ("a", "c"): 3})

    def test_header_below_a_dotted_key(self) -> None:
        """A header may add a table to one that a dotted key has created."""
        self.assert_lines(
            "[a]\nb.c = 1\n[a.b.d]\n",
            {("a",): 1, ("a", "b"): 2, ("a", "b", "c"): 2, ("a", "b", "d"): 3},
        )

    def test_array_elements_with_other_tables_between(self) -> None:
        """The elements of an array of tables are numbered across other tables."""
        self.assert_lines(
            "[[a]]\n[b]\n[[a]]\n[a.c]\n",
            {("a",): 1, ("a", 0): 1, ("b",): 2, ("a", 1): 3, ("a", 1, "c"): 4},
        )

    def test_nested_arrays(self) -> None:
        """Each level of nested arrays has a path."""
        depth = 100
        text = "\na = " + "[" * depth + "\n" + "]" * depth
        self.assert_lines(text, {("a", *[0] * length): 2 for length in range(depth)})

    def test_nesting_beyond_the_recursion_limit(self) -> None:
        """Nesting deeper than Python's recursion limit is scanned."""
        depth = 2000
        for opening, closing, parts in (("[", "]", 1), ("{a=", "}", 1), ("[{a=", "}]", 2)):
            text = "a = " + opening * depth + "1" + closing * depth
            self.assertEqual(len(key_lines(text)), 1 + depth * parts)

    def test_time_is_linear(self) -> None:
        """Large documents take less than 5 seconds of CPU time, so no step is quadratic."""
        for piece in (
            "[[a]]\nb.c = 1\n[a.d]\n",
            "# x\n\n",
            "x = [{a = 1}, # x\n[2]]\n",
        ):
            names = iter(range(1 << 20))
            text = re.sub("x =", lambda _: f"x{next(names)} =", piece * 10_000)  # noqa: B023
            self.assertLess(self.seconds(text), 5)
        for opening, closing in (('"""', '"""'), ("'''", "'''"), ("[", "]")):
            for filling in ("\n", "1,", '""\n', "''\n", "# x\n"):
                self.assertLess(self.seconds(f"a = {opening}{filling * 100_000}{closing}"), 5)

    def seconds(self, text: str) -> float:
        """Return the CPU time of scanning a document."""
        start = time.process_time()
        key_lines(text)
        return time.process_time() - start


NASTY = "\"'\\#[]{}=,. \t\né\x7f\U0001f600ab"
BARE = re.compile(r"[A-Za-z0-9_-]+")

# Pieces of multi-line strings, as source text.
BASIC_PIECES = [
    "\n",
    '"',
    '""',
    r"\"",
    r"\\",
    "\\\n  ",
    r"\u0041",
    "'''",
    "a = 1\n",
    "[[x]]\n",
    "#",
]
LITERAL_PIECES = ["\n", "'", "''", "\\", '"""', "a = 1\n", "[[x]]\n", "#", "}", "]", ","]

SCALARS = ["1", "0x1f", "1_0.5e-3", "inf", "-nan", "true", "07:32:00", "1979-05-27"]
SCALARS += ["1979-05-27 07:32:00.5Z", "1979-05-27T07:32:00-08:00", '""', "''", '""""""', "''''''"]

KEYS = st.sampled_from("abc") | st.text(NASTY, max_size=4)
TREES: Any = st.recursive(
    st.none(),
    lambda children: st.one_of(
        st.dictionaries(KEYS, children, max_size=4),
        st.lists(children, max_size=4),
        st.lists(st.dictionaries(KEYS, children, max_size=3), min_size=1, max_size=3),
    ),
    max_leaves=12,
)


class TomlGenerator:
    """
    Writer of a tree of tables as TOML, in a random one of all equivalent forms.

    Attributes:
        text: the document so far.
        lines: the line of each path, recorded while writing.
    """

    def __init__(self, random: Random) -> None:
        self.text = ""
        self.lines: dict[Path, int] = {}
        self._random = random

    def document(self, tree: dict[str, Any]) -> None:
        """Write a whole document."""
        statements, blocks = self._split((), (), tree)
        self._statements((), statements)
        for path, names, inner in blocks:
            self._blanks()
            self._header(path, names)
            self._statements(path, inner)

    def _split(self, path: Path, names: tuple[str, ...], table: dict[str, Any]) -> Any:
        """Return the pairs to write below the header of a table, and its subtables with headers."""
        statements: list[Any] = []
        children: list[list[Any]] = []
        for key, value in table.items():
            below, name = (*path, key), (*names, key)
            if isinstance(value, dict) and self._toss():
                children.append(self._table(below, name, value))
            elif isinstance(value, list) and self._all_tables(value) and self._toss():
                elements = [
                    self._table((*below, n), name, element) for n, element in enumerate(value)
                ]
                children.append([block for element in elements for block in element])
            else:
                statements += self._dotted((key,), value)
        self._random.shuffle(statements)
        return statements, self._merged(children)

    def _table(self, path: Path, names: tuple[str, ...], table: dict[str, Any]) -> list[Any]:
        """Return the headers of a table and its subtables, in a valid order."""
        blocks: list[Any]
        statements, blocks = self._split(path, names, table)
        own = (path, names, statements)
        if isinstance(path[-1], int):
            return [own, *blocks]
        if blocks and not statements and self._toss():
            return blocks
        place = self._random.randint(0, len(blocks)) if self._toss() else 0
        return [*blocks[:place], own, *blocks[place:]]

    def _dotted(self, names: tuple[str, ...], value: Any) -> list[Any]:
        """Return a table as one inline value, or as several pairs with dotted keys."""
        if not isinstance(value, dict) or not value or self._toss():
            return [(names, value)]
        return [pair for key, child in value.items() for pair in self._dotted((*names, key), child)]

    def _merged(self, children: list[list[Any]]) -> list[Any]:
        """Interleave lists at random; each keeps its order."""
        turns = [n for n, child in enumerate(children) for _ in child]
        self._random.shuffle(turns)
        each = [iter(child) for child in children]
        return [next(each[turn]) for turn in turns]

    def _header(self, path: Path, names: tuple[str, ...]) -> None:
        self._note(path)
        self.lines[path] = self._line()
        brackets = 2 if isinstance(path[-1], int) else 1
        self._write("[" * brackets)
        self._name(names)
        self._write("]" * brackets)
        self._end()

    def _statements(self, path: Path, statements: list[Any]) -> None:
        for names, value in statements:
            self._blanks()
            self._pair(path, names, value)
            self._end()

    def _pair(self, path: Path, names: tuple[str, ...], value: Any) -> None:
        self._note((*path, *names))
        self._name(names)
        self._write("=" + self._any(["", " ", "\t "]))
        self._value((*path, *names), value)

    def _value(self, path: Path, value: Any) -> None:
        if isinstance(value, dict):
            self._inline(path, value)
        elif isinstance(value, list):
            self._write("[")
            for number, element in enumerate(value):
                self._gap()
                self._note((*path, number))
                self._value((*path, number), element)
                self._gap()
                self._write("," if number < len(value) - 1 or self._toss() else "")
            self._gap()
            self._write("]")
        else:
            self._write(self._scalar())

    def _inline(self, path: Path, table: dict[str, Any]) -> None:
        pairs = [pair for key, value in table.items() for pair in self._dotted((key,), value)]
        self._random.shuffle(pairs)
        self._write("{")
        for number, (names, value) in enumerate(pairs):
            self._write(("," if number else "") + self._any(["", " ", "\t"]))
            self._pair(path, names, value)
            self._write(self._any(["", " ", "\t"]))
        self._write("}")

    def _name(self, names: tuple[str, ...]) -> None:
        space = self._any(["", "", " ", "\t "])
        parts = [self._part(name) for name in names]
        self._write(space + f"{space}.{space}".join(parts) + space)

    def _part(self, name: str) -> str:
        if BARE.fullmatch(name) and self._toss():
            return name
        if not re.search("['\n\x7f]", name) and self._toss():
            return f"'{name}'"
        return '"' + "".join(map(self._escaped, name)) + '"'

    def _escaped(self, character: str) -> str:
        if character in "\n\x7f" or self._random.random() < 0.2:
            forms = ["\\U%08x", "\\u%04x"] if character < "\U00010000" else ["\\U%08x"]
            return self._any(forms) % ord(character)
        return {'"': r"\"", "\\": r"\\"}.get(character, character)

    def _scalar(self) -> str:
        kind = self._random.randrange(5)
        if kind == 0:
            return str(self._any(SCALARS))
        pieces = self._random.choices(BASIC_PIECES if kind == 1 else LITERAL_PIECES, k=4)
        text = "".join(pieces)
        if kind == 1:
            return '"""' + re.sub('"{3,}', '""', text) + '"""'
        if kind == 2:
            return "'''" + re.sub("'{3,}", "''", text) + "'''"
        if kind == 3:
            return "'" + re.sub("['\n]", " ", text) + "'"
        return '"' + "".join(map(self._escaped, text)) + '"'

    def _note(self, path: Path) -> None:
        """Record the current line for each prefix of `path` that has none."""
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], self._line())

    def _gap(self) -> None:
        self._write(self._any(["", "", "", " ", "\n", "\n\t# ]}\"'''\n", "#,\n\n"]))

    def _blanks(self) -> None:
        self._write(self._any(["", "", "\n", "  ", "# [x]\n\n", '\t# a = """\n  # \'\n']))

    def _end(self) -> None:
        self._write(self._any(["\n", " \t\n", "# x = 1\n", " # ,a[[]}\"'''\n"]))

    def _write(self, text: str) -> None:
        self.text += text

    def _line(self) -> int:
        return self.text.count("\n") + 1

    def _any(self, choices: list[str]) -> str:
        return self._random.choice(choices)

    def _toss(self) -> bool:
        return self._random.random() < 0.5

    def _all_tables(self, value: list[Any]) -> bool:
        return bool(value) and all(isinstance(element, dict) for element in value)


class GeneratedDocumentTests(SynchronousTestCase):
    """Random documents, whose writer knows the lines."""

    @given(st.dictionaries(KEYS, TREES, max_size=5), st.integers(0, 1 << 32), st.booleans())
    def test_lines_are_as_written(self, tree: Any, seed: int, returns: bool) -> None:
        """Every path has the line on which it was written, with either line ending."""
        writer = TomlGenerator(Random(seed))
        writer.document(tree)
        text = writer.text.replace("\n", "\r\n") if returns else writer.text
        parsed = tomllib.loads(text)
        self.assertEqual(paths(parsed), paths(tree), msg=text)
        self.assertEqual(key_lines(text), writer.lines, msg=text)
