"""
A gRPC server without generated code; `python -m tests.helpers.grpc_server NAME` runs it alone.

The messages of its service `test.Echo` are bytes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]

# More than any test sends.
MAX_MESSAGE = 16 * 1024 * 1024

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.so_reuseport", 0),
]

# Seconds that `Sleep` blocks, unless its call is cancelled.
LONGEST_SLEEP = 30.0


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """
    A server on a free port of 127.0.0.1.

    Attributes:
        name: Returned in the trailer `x-server`.
        port: The port.
        address: "127.0.0.1:" and the port.
        calls: The number of calls of `test.Echo`.
        cancelled: Set when a call ended before its method did.
        sleeping: Set while `Sleep` is running.
        serving: The status of health checks by service, 1 for SERVING.
    """

    def __init__(self, name: str = "one", credentials: Any = None) -> None:
        """Start the server; with `credentials` it uses TLS."""
        self.name = name
        self.calls = 0
        self.cancelled = threading.Event()
        self.sleeping = threading.Event()
        self.serving: dict[str, int] = {}
        self._server = grpc.server(ThreadPoolExecutor(16), handlers=(self,), options=OPTIONS)
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method."""
        method = handler_call_details.method
        if method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self._check)
        return {
            "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "/test.Echo/Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "/test.Echo/Sleep": grpc.unary_unary_rpc_method_handler(self._sleep),
            "/test.Echo/Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            "/test.Echo/Repeat": grpc.unary_stream_rpc_method_handler(self._repeat),
            "/test.Echo/Chat": grpc.stream_stream_rpc_method_handler(self._chat),
        }.get(method)

    def _start(self, context: Any) -> None:
        self.calls += 1
        context.set_trailing_metadata((("x-server", self.name), ("x-data-bin", b"\0\xff")))

    def _unary(self, request: bytes, context: Any) -> bytes:
        self._start(context)
        return request

    def _fail(self, request: bytes, context: Any) -> bytes:
        self._start(context)
        context.abort(grpc.StatusCode.NOT_FOUND, "no \u00fcber 100%")
        return b""

    def _sleep(self, request: bytes, context: Any) -> bytes:
        self._start(context)
        woken = threading.Event()
        context.add_callback(woken.set)
        self.sleeping.set()
        if woken.wait(LONGEST_SLEEP):
            self.cancelled.set()
        return request

    def _collect(self, requests: Iterator[bytes], context: Any) -> bytes:
        self._start(context)
        return b",".join(requests)

    def _repeat(self, request: bytes, context: Any) -> Iterator[bytes]:
        self._start(context)
        for number in range(int(request)):
            yield b"%d" % number

    def _chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self._start(context)
        for request in requests:
            if request == b"abort":
                context.abort(grpc.StatusCode.ABORTED, "aborted")
            yield request

    def _check(self, request: bytes, context: Any) -> bytes:
        # The tag and the length of a short name precede it.
        service = request[2:].decode()
        if service not in self.serving:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return b"\x08" + bytes((self.serving[service],))

    def __enter__(self) -> GrpcServer:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._server.stop(0).wait(5)


if __name__ == "__main__":
    with GrpcServer(sys.argv[1]) as server:
        print(server.port, flush=True)
        sys.stdin.read()
