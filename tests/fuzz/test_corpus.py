"""What fuzzing begins with, and what it has found, tried again."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.target import SEEDS, try_input

CORPUS = Path(__file__).parent / "corpus"


class CorpusTests(SynchronousTestCase):
    """Inputs that made something fail once, and must not again."""

    def test_seeds(self) -> None:
        for seed in SEEDS:
            try_input(seed)

    def test_finds(self) -> None:
        for path in sorted(CORPUS.glob("*.bin")):
            try:
                try_input(path.read_bytes())
            except Exception as error:
                raise AssertionError(f"{path.name}: {error!r}") from error

    def test_seeds_cut_short_and_spoilt(self) -> None:
        for seed in SEEDS:
            for place in range(1, len(seed)):
                try_input(seed[:place])
                for octet in (b"\x00", b"\r", b"\n", b" ", b":", b"\xff", b"0"):
                    try_input(seed[:place] + octet + seed[place + 1 :])
