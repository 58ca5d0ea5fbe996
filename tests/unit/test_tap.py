"""The twistd plugin."""

from __future__ import annotations

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.process.exit import StartupExit
from balancebeam.process.service import TwistdBalancerService
from balancebeam.tap import Options, makeService


class PluginTests(SynchronousTestCase):
    """Options and service of `twistd balancebeam`."""

    def test_plugin(self) -> None:
        """twistd finds one plugin, which has the options and the service of this module."""
        makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "balancebeam"]
        self.assertEqual(len(makers), 1)
        self.assertIs(makers[0].options, Options)
        self.assertIs(makers[0].makeService, makeService)

    def test_invalid_options_exit(self) -> None:
        """Invalid options end the process with a status that is not 0 and one line each."""
        error = self.assertRaises(StartupExit, Options().parseOptions, ["-u", "a", "-a", "b"])
        self.assertNotEqual(error.code, 0)
        lines = str(error).split("\n")
        self.assertEqual(len(lines), 2)
        self.assertTrue(all(line.startswith("balancebeam: ") for line in lines), lines)

    def test_service(self) -> None:
        """The service is a balancer with signal handlers."""
        options = Options()
        options.parseOptions(["-u", "127.0.0.1:8080"])
        balancer = makeService(options)
        assert isinstance(balancer, TwistdBalancerService)
        self.assertEqual(balancer.settings, options.settings)
        self.assertIs(balancer.getServiceNamed("signals").parent, balancer)

    def test_failed_start_exits(self) -> None:
        """An address that is not available ends the process, and leaves nothing open."""
        options = Options()
        options.parseOptions(["-u", "127.0.0.1:8080", "-b", "unix:/nowhere/at/all"])
        balancer = makeService(options)
        error = self.assertRaises(StartupExit, balancer.privilegedStartService)
        self.assertIn("balancebeam: --bind unix:/nowhere/at/all: ", str(error))
