"""TLS contexts and certificates: loading, selection, renewal. Sockets are in `net`."""
