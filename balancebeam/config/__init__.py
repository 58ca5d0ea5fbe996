"""
Configuration: files and options become validated settings.

The configuration file is parsed (`toml_file`), options override it (`overrides`), defaults are
filled in, and rules that concern several tables are checked (`cross_checks`). All mistakes are
collected, each with file, line and key. The package does no network I/O and does not import
Twisted.
"""
