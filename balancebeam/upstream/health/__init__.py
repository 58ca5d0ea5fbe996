"""Health of servers: active health checks, outlier ejection, error rates and slow start."""
