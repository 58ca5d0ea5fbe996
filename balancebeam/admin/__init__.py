"""The admin API: HTTP server, authorization, routes, operations, live page and OpenAPI."""
