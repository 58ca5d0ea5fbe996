"""The HTTP/2 wire format (RFC 9113, RFC 7541): pure functions and objects without I/O."""
