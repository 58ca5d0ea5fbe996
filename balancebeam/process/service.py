"""The balancer as the service of a `twistd` process."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from random import SystemRandom
from typing import Any

from twisted.python.components import Componentized

from balancebeam.core.settings import Settings
from balancebeam.net.descriptors import raise_descriptor_limit
from balancebeam.process.exit import exit_on_config_error
from balancebeam.process.inherited_sockets import find_inherited_sockets
from balancebeam.process.log_owner import LogOwner
from balancebeam.process.pid_file import PidFile
from balancebeam.process.program_log import ProgramLog
from balancebeam.process.signals import SignalService
from balancebeam.process.systemd import SystemdNotifier
from balancebeam.server.balancer import BalancerService


class TwistdBalancerService(BalancerService):
    """
    A `BalancerService` of which a failed start ends the process with a message on stderr.

    Attributes:
        log_owner: the user that log files belong to after privileges are dropped; `None` if
            they are not.
        program_log: the log of the process; `None` if another program runs the service.
    """

    log_owner: LogOwner | None = None
    program_log: ProgramLog | None = None

    def setServiceParent(self, parent: Any) -> None:
        # `twistd` starts its log right after it has added the service to the application.
        if self.program_log is not None and isinstance(parent, Componentized):
            with exit_on_config_error():
                self.program_log.attach(parent)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        with exit_on_config_error(stderr_redirected=True):
            super().privilegedStartService()
        if self.log_owner is not None:
            self.log_owner.take_over(self.access_logs.files.values())

    def startService(self) -> None:
        with exit_on_config_error(stderr_redirected=True):
            super().startService()
        if self.log_owner is not None:
            self.log_owner.check(self.access_logs.files)


def build_process_service(
    settings: Settings,
    load_settings: Callable[[], Settings],
    reactor: Any,
    twistd_options: MutableMapping[str, Any],
) -> BalancerService:
    """
    Build the balancer with its signal handlers, systemd notification and hot restart.

    The soft limit of open files is raised to the hard limit.

    Args:
        settings: the settings to start with.
        load_settings: returns the settings for a reload; raises `ConfigError`.
        reactor: the reactor that `twistd` has installed.
        twistd_options: the options of `twistd` itself, of which `pidfile`, `uid` and
            the options of the log are used.

    Raises:
        StartupExit: the settings are invalid in a way that only the services detect.
    """
    raise_descriptor_limit()
    with exit_on_config_error():
        balancer = TwistdBalancerService(
            settings,
            reactor,
            SystemRandom(),
            clock=time.monotonic,
            load_settings=load_settings,
            find_inherited_sockets=find_inherited_sockets,
        )
    if twistd_options.get("uid") is not None:
        balancer.log_owner = LogOwner(twistd_options)
    program_log = ProgramLog(twistd_options, lambda: balancer.settings.log_format)
    # Without the options of twistd, the destination of the log is not known.
    balancer.program_log = program_log if twistd_options else None
    SignalService(
        balancer, reactor, SystemdNotifier(), PidFile(twistd_options), program_log
    ).setServiceParent(balancer)
    return balancer
