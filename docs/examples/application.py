"""
A twisted.web application with a balancer below /app, beside resources of its own.

    python application.py
"""

from __future__ import annotations

import sys

from twisted.application import service
from twisted.application.internet import StreamServerEndpointService
from twisted.internet import endpoints, reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web import resource, server, static

from balancebeam.api import make_balancer, single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import LimitSettings, ServerSettings

LISTEN = "tcp:8000:interface=127.0.0.1"

SERVERS = (
    ServerSettings(TcpAddress("127.0.0.1", 8081), weight=3),
    ServerSettings(TcpAddress("127.0.0.1", 8082)),
)


def make_site(
    servers: tuple[ServerSettings, ...] = SERVERS, listen: str = LISTEN
) -> service.MultiService:
    """The web server, and the balancer whose resource it contains, as one service."""
    # bind=(): the balancer has no listeners of its own.
    balancer = make_balancer(
        single_pool_settings(servers=servers, bind=(), limits=(LimitSettings(requests=600),))
    )
    root = resource.Resource()
    root.putChild(b"", static.Data(b"Hello from the application.\n", "text/plain"))
    root.putChild(b"app", balancer.resource)

    site = service.MultiService()
    balancer.setServiceParent(site)
    endpoint = endpoints.serverFromString(reactor, listen)
    StreamServerEndpointService(endpoint, server.Site(root)).setServiceParent(site)
    return site


def main() -> None:
    """Run until interrupted."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    site = make_site()
    site.startService()
    # The reactor waits for what this returns.
    reactor.addSystemEventTrigger("before", "shutdown", site.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
