"""HTTP/1.1 on the wire: pure functions and objects, no I/O and no Twisted."""
