"""Error responses on streams that have no exchange, or none any more."""

from __future__ import annotations

from balancebeam.core.errors import RequestError
from balancebeam.protocols.grpc import error_fields
from balancebeam.protocols.http1.local_reply import jsend_error, local_reply_fields
from balancebeam.protocols.http2.frames import encode_data, encode_headers
from balancebeam.protocols.http2.output import FrameOutput
from balancebeam.protocols.http2.response_block import encode_local_reply


def write_error(
    output: FrameOutput,
    stream_id: int,
    error: RequestError,
    now: float,
    bodyless: bool,
    grpc: bool,
) -> int:
    """
    Write a complete error response.

    Args:
        output: The output of the connection.
        stream_id: The stream, which ends with the response.
        error: The error.
        now: The time in seconds since the epoch.
        bodyless: The request was HEAD.
        grpc: The request was gRPC.

    Returns:
        The length of the body in bytes.
    """
    if grpc:
        block = encode_local_reply(200, error_fields(error.status, error.reason), now)
        output.append(encode_headers(stream_id, output.begin_block() + block, True))
        return 0
    body = jsend_error(error.reason)
    if len(body) > min(output.window, output.initial_window):
        # The client accepts no content now, and nothing is kept for this stream.
        body = b""
    block = encode_local_reply(error.status, local_reply_fields(body), now)
    if bodyless:
        body = b""
    output.append(encode_headers(stream_id, output.begin_block() + block, not body))
    if body:
        output.window -= len(body)
        output.append(encode_data(stream_id, body, True))
    return len(body)
