"""Client connections: the protocols that read requests and write responses."""
