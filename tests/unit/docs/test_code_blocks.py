"""Code in the README and in the pages can be used as it stands."""

from __future__ import annotations

import re
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.config.toml_file import load_file
from balancebeam.core.settings import AdminState
from tests.helpers.documentation import DOCS

README = DOCS.parent / "README.rst"

_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:(?: +.*)?\n)+)", re.MULTILINE)


def code_blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language, without their indentation."""
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(code) for name, code in blocks if name == language]


def all_blocks(language: str) -> Iterator[tuple[str, str]]:
    """Names of pages, and their code blocks in a language."""
    for page in (README, *sorted(DOCS.glob("*.rst"))):
        for code in code_blocks(page, language):
            yield page.name, code


class CodeBlocks(SynchronousTestCase):
    """What readers copy works."""

    def test_toml(self) -> None:
        """Every TOML block is a valid configuration file, or part of one."""
        checked = 0
        for page, code in all_blocks("toml"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "site.toml")
                path.write_text(code, encoding="utf-8")
                _, problems = load_file(str(path))
            self.assertEqual(problems, [], page)
            checked += 1
        self.assertGreaterEqual(checked, 3)

    def test_python(self) -> None:
        """The README's balancer can be made, and a server be drained as the embedding page says."""
        names: dict[str, Any] = {}
        for code in code_blocks(README, "python"):
            exec(compile(code, str(README), "exec"), names)
        balancer = names["balancer"]
        for code in code_blocks(DOCS / "embedding.rst", "python"):
            exec(compile(code, "embedding.rst", "exec"), names)
        states = [server.admin_state for server in balancer.server_set.servers]
        self.assertEqual(states, [AdminState.DRAIN, AdminState.READY])
