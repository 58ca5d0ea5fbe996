"""Upstream servers: the set of servers, their health, and connections to them."""
