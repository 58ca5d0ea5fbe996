"""Fuzzing: `python -m tests.fuzz.run` (needs the extra `fuzz`)."""
