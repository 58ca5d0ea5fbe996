"""
A balancer in a Twisted application file.

    twistd -ny balancebeam.tac
"""

from attrs import evolve
from twisted.application import service

from balancebeam.api import make_balancer, single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminSettings, ServerSettings

settings = single_pool_settings(
    servers=(
        ServerSettings(TcpAddress("10.0.0.1", 8080), weight=3),
        ServerSettings(TcpAddress("10.0.0.2", 8080)),
    ),
    bind=(TcpAddress("127.0.0.1", 8000),),
    algorithm="least-connections",
)
settings = evolve(settings, admin=AdminSettings(TcpAddress("127.0.0.1", 1101)))

# twistd looks for this name.
application = service.Application("balancebeam")
make_balancer(settings).setServiceParent(application)
