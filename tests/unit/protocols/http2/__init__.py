"""Tests of the HTTP/2 wire format."""
