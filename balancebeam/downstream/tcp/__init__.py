"""TCP connections from clients."""
