"""The admin API: HTTP server, authorization, routes, operations, dashboard and OpenAPI."""
