"""The algorithms: which server is tried first, and which after it."""
