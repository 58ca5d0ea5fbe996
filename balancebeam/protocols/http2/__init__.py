"""HTTP/2 wire format: frames and header compression, without I/O."""
