"""An event-driven reverse proxy and load balancer for HTTP, built on Twisted."""

__version__ = "0.1.0"
