"""Benchmarks of the balancer and of comparable proxies: `python -m bench`."""
