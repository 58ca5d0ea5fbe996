"""
Load generator with a constant request rate over all connections.

`python -m bench.constant_rate PORT SECONDS RATE CONNECTIONS` prints one line of
JSON. It is an open loop: each request is sent when it is due, whether or not
earlier requests are answered, and its latency is measured from the due time, so
that a stalled server is not hidden ("coordinated omission"). Load generators
with one rate per connection start all connections at the same moment, and so
measure how a burst is processed.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(port: int, seconds: float, rate: float, connections: int) -> dict[str, object]:
    """
    Send requests to `port` at a constant rate.

    Args:
        seconds: length of the run; responses are awaited for up to 5 s longer.
        rate: requests per second over all connections.
        connections: number of keep-alive connections.

    Returns:
        `latencies`: of all responses, in milliseconds, sorted. `failed`: the
        number of requests without a response with status 200, and of requests
        that were due while their connection still waited for a response.
    """
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(connections)]
    for client in clients:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
    due: dict[socket.socket, float] = {}
    latencies: list[float] = []
    failed = 0
    started_at = time.perf_counter()
    count = round(seconds * rate)
    sent = 0
    while sent < count or due:
        now = time.perf_counter()
        due_at = started_at + sent / rate
        if sent < count and now >= due_at:
            client = clients[sent % connections]
            if client in due:
                failed += 1
            else:
                client.send(REQUEST)
                due[client] = due_at
            sent += 1
            continue
        if now > started_at + seconds + 5:
            failed += len(due)
            break
        # select(2) has a resolution of microseconds; epoll_wait(2) rounds up to milliseconds.
        wait = due_at - now if sent < count else 0.1
        for client in select.select(list(due), [], [], wait)[0]:
            response = client.recv(65536)
            latencies.append((time.perf_counter() - due.pop(client)) * 1000)
            failed += not response.startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()
    return {"latencies": sorted(latencies), "failed": failed}


if __name__ == "__main__":
    port, seconds, rate, connections = (float(argument) for argument in sys.argv[1:5])
    print(json.dumps(run(int(port), seconds, rate, int(connections))))
