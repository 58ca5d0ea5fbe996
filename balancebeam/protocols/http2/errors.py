"""Error codes of HTTP/2 (RFC 9113, 7), and exceptions that carry them."""

from __future__ import annotations

from balancebeam.core.errors import ProtocolError

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
SETTINGS_TIMEOUT = 0x4
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC
HTTP_1_1_REQUIRED = 0xD

ERROR_NAMES = {
    NO_ERROR: "NO_ERROR",
    PROTOCOL_ERROR: "PROTOCOL_ERROR",
    INTERNAL_ERROR: "INTERNAL_ERROR",
    FLOW_CONTROL_ERROR: "FLOW_CONTROL_ERROR",
    SETTINGS_TIMEOUT: "SETTINGS_TIMEOUT",
    STREAM_CLOSED: "STREAM_CLOSED",
    FRAME_SIZE_ERROR: "FRAME_SIZE_ERROR",
    REFUSED_STREAM: "REFUSED_STREAM",
    CANCEL: "CANCEL",
    COMPRESSION_ERROR: "COMPRESSION_ERROR",
    CONNECT_ERROR: "CONNECT_ERROR",
    ENHANCE_YOUR_CALM: "ENHANCE_YOUR_CALM",
    INADEQUATE_SECURITY: "INADEQUATE_SECURITY",
    HTTP_1_1_REQUIRED: "HTTP_1_1_REQUIRED",
}


def error_name(code: int) -> str:
    """Return the name of an error code; the number in hexadecimal for an unknown one."""
    return ERROR_NAMES.get(code) or f"0x{code:x}"


class Http2ConnectionError(ProtocolError):
    """
    An error that ends the connection (RFC 9113, 5.4.1).

    Attributes:
        code: The error code for GOAWAY.
        reason: The details, for GOAWAY and logs.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{error_name(self.code)}: {self.reason}"


class Http2StreamError(ProtocolError):
    """
    An error that ends one stream (RFC 9113, 5.4.2).

    Attributes:
        stream_id: The stream.
        code: The error code for RST_STREAM.
        reason: The details, for logs.
    """

    def __init__(self, stream_id: int, code: int, reason: str) -> None:
        super().__init__(stream_id, code, reason)
        self.stream_id = stream_id
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"stream {self.stream_id}: {error_name(self.code)}: {self.reason}"
