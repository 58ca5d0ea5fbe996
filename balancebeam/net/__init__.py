"""Network primitives on Twisted: transports, the epoll poller, listening sockets, connectors."""
