"""
`python -m tests.fuzz.run [FOLDER] [atheris options]`: fuzz both parsers and both doors' ends.

Atheris guides it by coverage. `-max_total_time=3600` ends it after an hour;
what it finds is written to the working directory as `crash-…`, belongs into
`tests/fuzz/corpus`, and is then tried by the tests.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["balancebeam"]):
    from tests.fuzz.target import SEEDS, try_input


def main() -> None:
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        for number, seed in enumerate(SEEDS):
            with open(f"{folders[0]}/seed-{number}", "wb") as file:
                file.write(seed)
    atheris.Setup(sys.argv, try_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
