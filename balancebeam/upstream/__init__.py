"""Upstream servers: the set of servers, selection, health, and connections to servers."""
