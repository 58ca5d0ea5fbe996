"""
`twistd balancebeam`: the plugin's options and service, by Twisted's convention.

Importing this module installs no reactor: `twistd --reactor` chooses it later.
"""

from __future__ import annotations

from twisted.application.service import IService

from balancebeam.process.exit import exit_on_config_error
from balancebeam.process.options import CommandLineOptions


class Options(CommandLineOptions):
    """`CommandLineOptions` that end the process when they are invalid."""

    def parseOptions(self, options: list[str] | None = None) -> None:
        with exit_on_config_error():
            super().parseOptions(options)


def makeService(options: Options) -> IService:
    """Build the service that `twistd balancebeam` runs."""
    # Imported late: twisted.web.proxy imports the reactor, which twistd has
    # chosen by now.
    from twisted.internet import reactor

    from balancebeam.process.service import build_process_service

    # `parent` has the options of twistd itself; a test or a program that calls
    # this function need not set it.
    parent = getattr(options, "parent", None) or {}
    return IService(build_process_service(options.settings, options.load_settings, reactor, parent))
