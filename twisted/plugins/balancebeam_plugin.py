"""Makes `balancebeam` known to twistd."""

from twisted.application.service import ServiceMaker

balancebeam = ServiceMaker(
    "balancebeam",
    "balancebeam.tap",
    "A reverse proxy and load balancer for HTTP.",
    "balancebeam",
)
