"""Measures the balancer beside its peers: `python -m bench`."""
