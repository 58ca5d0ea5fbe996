"""
Fuzz the parsers, and both sides of a balancer in memory, guided by coverage (Atheris).

`python -m tests.fuzz.run [FOLDER] [atheris options]` needs the extra `fuzz`. FOLDER
is a corpus, to which the seeds are written first. `-max_total_time=3600` ends the
run after an hour. Inputs that fail are written to the working directory as
`crash-…`; add them to `tests/fuzz/corpus`, where the ordinary tests try them again.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["balancebeam"]):
    from tests.fuzz.target import SEEDS, try_input


def main() -> None:
    """Write the seeds to the corpus, if one is given, and run Atheris."""
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        for number, seed in enumerate(SEEDS):
            with open(f"{folders[0]}/seed-{number}", "wb") as file:
                file.write(seed)
    atheris.Setup(sys.argv, try_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
