"""The HTTP/1.1 wire format: parsers and encoders for heads and bodies."""
