"""Decisions: pure, given time and randomness, without I/O and without Twisted."""
