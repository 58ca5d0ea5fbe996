"""Configuration: files and options become validated settings."""
