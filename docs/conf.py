"""Configuration of the Sphinx documentation: `sphinx-build -W -n docs OUTPUT`."""

from __future__ import annotations

from balancebeam import __version__

project = "balancebeam"
author = "the balancebeam authors"
project_copyright = author
release = version = __version__

# Nothing is fetched while building: the build works without a network.
extensions: list[str] = []
nitpicky = True
exclude_patterns = ["examples/README*"]
highlight_language = "text"

html_theme = "furo"
html_title = f"balancebeam {release}"
