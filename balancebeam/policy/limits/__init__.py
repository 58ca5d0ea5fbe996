"""The limiters: how many requests a key may make."""
