"""Load balancing algorithms: pure code that orders the servers of a pool for one request."""
