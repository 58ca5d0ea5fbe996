"""Access logs and metrics: what the balancer reports about itself."""
