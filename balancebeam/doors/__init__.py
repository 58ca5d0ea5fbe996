"""Clients: how requests come in, and the one spine that they all take."""
