"""The adapter to `twisted.web`."""
