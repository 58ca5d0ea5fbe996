"""Error responses on streams that have no exchange, or none any more."""

from __future__ import annotations

from balancebeam.core.errors import RequestError
from balancebeam.downstream.http2.exchange import Http2Exchange
from balancebeam.downstream.http2.interfaces import RequestChannel
from balancebeam.protocols.grpc import error_fields, is_grpc
from balancebeam.protocols.http1.local_reply import jsend_error, local_reply_fields
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http2.errors import CANCEL, PROTOCOL_ERROR
from balancebeam.protocols.http2.frames import encode_data, encode_headers, encode_rst_stream
from balancebeam.protocols.http2.output import FrameOutput
from balancebeam.protocols.http2.request_fields import RequestFieldsError
from balancebeam.protocols.http2.response_block import encode_local_reply
from balancebeam.proxy.rejected import RejectedRequest, first_line


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


def reject_request(
    channel: RequestChannel, stream_id: int, error: RequestFieldsError, end: bool
) -> None:
    """
    Respond to a request that cannot be forwarded, and count it.

    Args:
        channel: The connection.
        stream_id: The stream.
        error: The error.
        end: Whether the client has ended the stream.
    """
    size = 0
    if not error.malformed:
        bodyless, now = error.line.startswith(b"HEAD "), channel.context.ticker.wall_time()
        size = write_error(channel.output, stream_id, error, now, bodyless, error.grpc)
    if error.status == 400:
        channel.output.append(encode_rst_stream(stream_id, PROTOCOL_ERROR))
        channel.remember_reset(stream_id)
    elif not end:
        channel.cancel_later(stream_id)
    line = first_line(error.line)
    rejected = RejectedRequest(channel.client, line, error.status, error.reason, size)
    channel.context.count_rejected(rejected)


def abort_request(channel: RequestChannel, exchange: Http2Exchange, error: RequestError) -> None:
    """End an exchange because its body cannot be read; see `Http1Channel.abort_request`."""
    response_started = exchange.downstream_response_started
    if not response_started:
        exchange.status = error.status
    exchange.client_disconnected()
    if response_started:
        # A client that sends too slowly does not violate the protocol.
        channel.reset_stream(exchange, CANCEL if error.status == 408 else PROTOCOL_ERROR)
    else:
        bodyless, grpc = exchange.method == b"HEAD", is_grpc(exchange.head.forward_bytes)
        now = channel.context.ticker.wall_time()
        write_error(channel.output, exchange.stream_id, error, now, bodyless, grpc)
        del channel.streams[exchange.stream_id]
        channel.cancel_later(exchange.stream_id)


def body_too_large(head: RequestHead) -> RequestFieldsError:
    """Return the error for a request body above the limit."""
    line = b"%b %b HTTP/2.0" % (head.method, head.target)
    grpc = is_grpc(head.forward_bytes)
    return RequestFieldsError(413, "request body too large", line, malformed=False, grpc=grpc)
