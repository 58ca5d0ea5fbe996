"""Wire formats: pure parsers and encoders, without I/O and without Twisted."""
