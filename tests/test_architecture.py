"""Package structure: layers, cycles, pure packages, and imports of the reactor."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent / "balancebeam"

# Each package imports packages of lower levels only. `SIBLINGS` lists the pairs
# of one level of which the first may import the second.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("core", "cli"),
    ("balancing", "ratelimit", "routing", "protocols", "net", "tls"),
    ("upstream", "admission", "config", "acme"),
    ("proxy",),
    ("admin", "state", "web", "downstream", "observability"),
    ("server",),
    ("process",),
    ("api", "tap", "__main__"),
)

SIBLINGS = {("admin", "observability"), ("tls", "protocols"), ("net", "tls")}

# The console script starts `twistd` unless it is given an operator command.
STARTS_TWISTD = "cli/main.py"

PURE = ("core", "cli", "balancing", "ratelimit", "routing", "protocols", "config")

MAX_LINES = 400
MAX_ROOT_MODULES = 8


def modules() -> Iterator[tuple[str, str, Path]]:
    """The relative path, the package and the file of every module."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        yield name, name.partition("/")[0].removesuffix(".py"), path


def imports(path: Path) -> Iterator[str]:
    """
    The modules that a file imports, in functions and under `TYPE_CHECKING` too.

    `from package import module` gives `package.module`.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if module_path(full) is not None else node.module
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield name.name


def module_path(module: str) -> Path | None:
    """The file of a module of this package; `None` for all others."""
    first, _, rest = module.partition(".")
    if first != "balancebeam":
        return None
    base = ROOT.joinpath(*rest.split(".")) if rest else ROOT
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def top_level_imports(path: Path) -> Iterator[str]:
    """`module.name` for each name that is imported when the file itself is imported."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield name.name


def level(package: str) -> int:
    """The position of a package in `LEVELS`; packages that are not listed fail the test."""
    return next(number for number, names in enumerate(LEVELS) if package in names)


def import_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a directed graph as a list of its nodes; empty if there is none."""
    finished: set[str] = set()
    for start, targets in graph.items():
        path: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = [(start, iter(targets))]
        while stack:
            node, rest = stack[-1]
            if node not in path:
                path.append(node)
            for target in rest:
                if target in path:
                    return [*path[path.index(target) :], target]
                if target not in finished:
                    stack.append((target, iter(graph.get(target, ()))))
                    break
            else:
                stack.pop()
                path.remove(node)
                finished.add(node)
    return []


class LayerTests(SynchronousTestCase):
    """Which package may import which."""

    def test_packages_import_lower_levels_only(self) -> None:
        """A package imports only packages of lower levels, under `TYPE_CHECKING` too."""
        for name, package, path in modules():
            if package == "__init__":
                continue
            for module in imports(path):
                if module_path(module) is None or module == "balancebeam":
                    continue
                target = module.split(".")[1]
                if target == package or (package, target) in SIBLINGS:
                    continue
                self.assertLess(level(target), level(package), f"{name} imports {module}")

    def test_no_import_cycle(self) -> None:
        """No module imports itself through other modules."""
        graph = {
            path.relative_to(ROOT).as_posix(): {
                target.relative_to(ROOT).as_posix()
                for target in map(module_path, imports(path))
                if target is not None and target.name != "__init__.py"
            }
            for _, _, path in modules()
        }
        self.assertGreater(len(graph), 100)
        self.assertEqual(import_cycle(graph), [])

    def test_import_cycle_finds_one(self) -> None:
        """The search for cycles finds a cycle and accepts a diamond."""
        self.assertEqual(import_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}), ["b", "c", "b"])
        self.assertEqual(import_cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}), [])

    def test_pure_packages_do_not_import_twisted(self) -> None:
        """Packages of decisions and wire formats import neither Twisted nor zope."""
        for name, package, path in modules():
            if package in PURE and name != STARTS_TWISTD:
                for module in imports(path):
                    self.assertNotIn(module.split(".")[0], ("twisted", "zope"), name)

    def test_no_module_imports_the_reactor_at_its_top(self) -> None:
        """Importing a module never installs a reactor: `twistd --reactor` chooses it."""
        for name, _, path in modules():
            self.assertNotIn("twisted.internet.reactor", top_level_imports(path), name)

    def test_the_command_line_installs_no_reactor(self) -> None:
        """Importing the twistd plugin's module installs no reactor."""
        program = "import sys, balancebeam.tap; sys.exit('twisted.internet.reactor' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
        self.assertEqual(done.returncode, 0)


class SizeTests(SynchronousTestCase):
    """Small modules, and few of them in the root."""

    def test_no_module_is_long(self) -> None:
        """No module has more than 400 lines."""
        for name, _, path in modules():
            self.assertLessEqual(len(path.read_text().splitlines()), MAX_LINES, name)

    def test_few_modules_lie_in_the_root(self) -> None:
        """The package root has at most 8 modules."""
        self.assertLessEqual(len(list(ROOT.glob("*.py"))), MAX_ROOT_MODULES)
