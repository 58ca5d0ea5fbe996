"""Runtime changes that survive a restart: the state file."""
