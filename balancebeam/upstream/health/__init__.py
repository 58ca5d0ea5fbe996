"""Health of servers: active checks, passive checks, ejection."""
