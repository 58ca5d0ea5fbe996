"""The tutorial's commands print what the page shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.tutorial import PAGE, Tutorial, normalized, ports_are_free


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_tutorial(tmp_path: Path) -> None:
    """Every command of the tutorial works, and its output is that of the page."""
    if not ports_are_free():
        pytest.skip("a port of the tutorial is in use")
    page = PAGE.read_text()
    shown = Tutorial(tmp_path).run(page)
    assert normalized(shown) == normalized(page), "run: python -m tests.helpers.tutorial"
