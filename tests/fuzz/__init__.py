"""Fuzzing of the parsers and of a whole balancer: `python -m tests.fuzz.run`."""
