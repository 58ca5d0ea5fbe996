"""Servers: which there are, how they are, and connections to them."""
