"""The seeds of the fuzzer, and inputs that have failed, as ordinary tests."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.target import SEEDS, try_input

CORPUS = Path(__file__).parent / "corpus"


class CorpusTests(SynchronousTestCase):
    """Seeds, variations of them, and inputs that once failed."""

    def test_seeds(self) -> None:
        """The seeds violate no invariant."""
        for seed in SEEDS:
            try_input(seed)

    def test_corpus(self) -> None:
        """Inputs that once failed violate no invariant any more."""
        for path in sorted(CORPUS.glob("*.bin")):
            try:
                try_input(path.read_bytes())
            except Exception as error:
                raise AssertionError(f"{path.name}: {error!r}") from error

    def test_truncated_and_changed_seeds(self) -> None:
        """No prefix of a seed, and no seed with one byte changed, violates an invariant."""
        for seed in SEEDS:
            for position in range(1, len(seed)):
                try_input(seed[:position])
                for byte in (b"\x00", b"\r", b"\n", b" ", b":", b"\xff", b"0"):
                    try_input(seed[:position] + byte + seed[position + 1 :])
