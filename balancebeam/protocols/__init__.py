"""Wire formats as pure code: no I/O and no Twisted."""
