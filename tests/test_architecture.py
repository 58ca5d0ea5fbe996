"""Imports run one way, and some rooms stay away from Twisted."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent / "balancebeam"

# Each package imports packages of lower levels only, and of its own level those
# in `SIBLINGS`.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("core", "cli"),
    ("balancing", "ratelimit", "routing", "protocols", "net"),
    ("upstream", "admission", "config"),
    ("proxy",),
    ("admin", "state", "web", "downstream", "observability"),
    ("server",),
    ("process",),
    ("api", "tap", "__main__"),
)

SIBLINGS = {("admin", "observability"), ("__main__", "tap"), ("tap", "api")}

PURE = ("core", "cli", "balancing", "ratelimit", "routing", "protocols", "config")


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def imports(path: Path) -> list[str]:
    """The modules that a file imports, at whatever depth."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "balancebeam":
                found += [f"balancebeam.{name.name}" for name in node.names]
            else:
                found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return found


def top_level_imports(path: Path) -> list[str]:
    """`module.name` for what a file imports when it is itself imported."""
    found = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names]
    return found


class Direction(SynchronousTestCase):
    """The arrows between the rooms."""

    def files(self) -> list[tuple[str, str, Path]]:
        found = []
        for path in sorted(ROOT.rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            room = name.partition("/")[0].removesuffix(".py")
            if room != "__init__":
                found.append((name, room, path))
        self.assertGreater(len(found), 30)
        return found

    def test_no_arrow_runs_back(self) -> None:
        for name, room, path in self.files():
            for module in imports(path):
                if not module.startswith("balancebeam.") or module == "balancebeam.__version__":
                    continue
                other = module.split(".")[1]
                self.assertLessEqual(level(other), level(room), f"{name} imports {module}")
                if (name, module) not in ALLOWED:
                    self.assertNotIn((room, other), STRANGERS, f"{name} imports {module}")
                    self.assertNotIn((other, room), STRANGERS, f"{name} imports {module}")

    def test_pure_rooms_do_not_know_twisted(self) -> None:
        for name, room, path in self.files():
            if room in PURE:
                for module in imports(path):
                    self.assertFalse(module.startswith("twisted"), f"{name} imports {module}")

    def test_nothing_imports_the_reactor_when_it_is_imported(self) -> None:
        for name, _, path in self.files():
            for imported in top_level_imports(path):
                self.assertNotEqual(imported, "twisted.internet.reactor", name)

    def test_the_command_line_installs_no_reactor(self) -> None:
        program = "import sys, balancebeam.tap; sys.exit('twisted.internet.reactor' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
        self.assertEqual(done.returncode, 0)
