"""Rate limiting algorithms: pure code that counts requests by key."""
