"""Certificates from ACME servers (RFC 8555): orders, challenges, storage and renewal."""
