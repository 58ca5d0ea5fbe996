"""The grammar of access log lines."""

from __future__ import annotations

import re

# A complete line of the combined format.
_CHARACTER = r"[!#-\[\]-~]|\\x[0-9A-F]{2}"
_QUOTED = f'"(?: |{_CHARACTER})*"'
COMBINED = re.compile(
    rf"(?:{_CHARACTER})+ - - \[[0-9A-Za-z/:]+ [+-][0-9]{{4}}\] "
    rf"{_QUOTED} [0-9]+ [0-9]+ {_QUOTED} {_QUOTED}\n"
)
