"""Watching: what the program tells of what it does."""
