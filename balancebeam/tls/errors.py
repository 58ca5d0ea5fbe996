"""Errors of TLS connections."""

from __future__ import annotations

import ssl

from twisted.internet.error import ConnectionLost


class TlsError(ConnectionLost):
    """The connection was ended by a TLS error; the text has the reason."""


def describe_ssl_error(error: Exception) -> str:
    """The reason of an error of the TLS library as text, without its numbers and source files."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)
