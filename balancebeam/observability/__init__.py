"""Access logs, connection log and metrics."""
