"""State that a factory shares with its HTTP/2 connections."""

from __future__ import annotations

from attrs import Factory, define

from balancebeam.downstream.http1.context import Http1Context
from balancebeam.protocols.http2.hpack import HeaderLimits
from balancebeam.protocols.http2.request_fields import FieldSection, RequestInterpreter
from balancebeam.protocols.http2.response_block import ResponseEncoder
from balancebeam.protocols.http2.table_state import SharedTables

# SETTINGS_MAX_HEADER_LIST_SIZE.
MAX_HEADER_LIST_SIZE = 64 * 1024

# More than HTTP/1.1 has, because each crumb of Cookie counts (RFC 9113, 8.2.3).
MAX_FIELDS = 256

HEADER_LIMITS = HeaderLimits(MAX_HEADER_LIST_SIZE, MAX_FIELDS)


def _build_tables(context: Http2Context) -> SharedTables[FieldSection]:
    interpreter = RequestInterpreter(context.parser, secure=False)
    return SharedTables(interpreter.interpret, interpreter.with_path)


def _build_secure_tables(context: Http2Context) -> SharedTables[FieldSection]:
    interpreter = RequestInterpreter(context.secure_parser, secure=True)
    return SharedTables(interpreter.interpret, interpreter.with_path)


@define(eq=False, kw_only=True)
class Http2Context(Http1Context):
    """
    The context of a frontend that serves both HTTP versions.

    Attributes:
        encoder: Encodes the heads of responses, shared because it memoises them.
        tables: The header tables of connections without TLS, likewise.
        secure_tables: The header tables of connections over TLS.
    """

    encoder: ResponseEncoder = Factory(ResponseEncoder)
    tables: SharedTables[FieldSection] = Factory(_build_tables, takes_self=True)
    secure_tables: SharedTables[FieldSection] = Factory(_build_secure_tables, takes_self=True)
