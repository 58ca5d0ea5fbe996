"""What the balancer is told: text from people, made into checked settings."""
