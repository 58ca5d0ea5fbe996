"""Runtime changes that survive a restart: snapshot, file format and state file."""
