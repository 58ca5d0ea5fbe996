"""Notifications to systemd."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.process.systemd import SystemdNotifier


class SystemdNotifierTests(SynchronousTestCase):
    """Notifications without systemd; tests/system/test_signals.py has the others."""

    def test_socket_that_does_not_exist(self) -> None:
        """A missing notification socket raises nothing."""
        SystemdNotifier({}).ready()
        SystemdNotifier({"NOTIFY_SOCKET": "/nowhere"}).ready()
        SystemdNotifier({"NOTIFY_SOCKET": "@no-such-socket"}).stopping()
