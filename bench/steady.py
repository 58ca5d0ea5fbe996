"""
An even load: so many requests a second, spread over all connections.

`python -m bench.steady PORT SECONDS RATE CONNECTIONS` prints a line of JSON.
Requests are sent when they are due, whatever became of those before (an open
loop), and each is timed from when it was due, so that a server that stalls
cannot hide it. Load generators that give each connection its own rate begin
with all of them at once and measure how a burst is worked off.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(port: int, seconds: float, rate: float, connections: int) -> dict[str, object]:
    """Put the load upon `port`; latencies are in milliseconds, sorted."""
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(connections)]
    for client in clients:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
    due: dict[socket.socket, float] = {}
    taken: list[float] = []
    failed = 0
    begun = time.perf_counter()
    count = round(seconds * rate)
    sent = 0
    while sent < count or due:
        now = time.perf_counter()
        when = begun + sent / rate
        if sent < count and now >= when:
            client = clients[sent % connections]
            if client in due:
                failed += 1
            else:
                client.send(REQUEST)
                due[client] = when
            sent += 1
            continue
        if now > begun + seconds + 5:
            failed += len(due)
            break
        # select(2) sleeps to the microsecond; epoll would round up to milliseconds.
        wait = when - now if sent < count else 0.1
        for client in select.select(list(due), [], [], wait)[0]:
            answer = client.recv(65536)
            taken.append((time.perf_counter() - due.pop(client)) * 1000)
            failed += not answer.startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()
    return {"latencies": sorted(taken), "failed": failed}


if __name__ == "__main__":
    port, seconds, rate, connections = (float(argument) for argument in sys.argv[1:5])
    print(json.dumps(run(int(port), seconds, rate, int(connections))))
