"""Value types and settings shared by all packages; no I/O and no Twisted."""
