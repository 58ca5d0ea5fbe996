"""The record of state changes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.state_changes import MAX_CHANGES, StateChange, StateChanges
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminState, ServerSettings, ServerSource
from balancebeam.upstream.server_set import ServerSet

SERVER = ServerSettings(TcpAddress("10.0.0.1", 80))


class StateChangesTests(SynchronousTestCase):
    """Which notifications of a server set are changes."""

    def setUp(self) -> None:
        self.now = 100.0
        self.changes = StateChanges(lambda: self.now)
        self.server_set = ServerSet((SERVER,))
        self.changes.watch("app", self.server_set)
        (self.server,) = self.server_set.servers

    def states(self) -> list[tuple[str, str]]:
        """Return the recorded states, with the states before."""
        return [(change.previous, change.state) for change in self.changes.recent]

    def test_change(self) -> None:
        """A change has time, pool, server, both states and the reason."""
        self.server_set.set_admin_state(self.server, AdminState.DRAIN, 100.0)
        self.assertEqual(
            list(self.changes.recent),
            [
                StateChange(
                    100.0, "app", "10.0.0.1:80", "up", "draining", "set to drain by administrator"
                )
            ],
        )

    def test_no_change(self) -> None:
        """Notifications without another state are not recorded."""
        self.server.weight = 5
        self.server_set.notify(self.server)
        self.server_set.set_status_reason(self.server, "check passed", 101.0)
        self.server_set.notify()
        self.assertEqual(self.states(), [])

    def test_trial_request(self) -> None:
        """A half-open server is not recorded as up before its trial request has succeeded."""
        self.server.ejected = True
        self.server_set.set_status_reason(self.server, "refused", 101.0)
        self.server.ejected = False
        self.server_set.notify(self.server)
        self.server.ejected = True
        self.server_set.set_status_reason(self.server, "refused again", 111.0)
        self.server.ejected = False
        self.server_set.notify(self.server)
        self.assertEqual(self.states(), [("up", "down")])
        self.server_set.set_status_reason(self.server, "it responds again", 121.0)
        self.assertEqual(self.states(), [("up", "down"), ("down", "up")])

    def test_added_and_removed(self) -> None:
        """Servers that are added or removed are changes."""
        added = self.server_set.add(
            ServerSettings(TcpAddress("10.0.0.2", 80)), ServerSource.REGISTERED
        )
        self.server_set.remove(added)
        self.assertEqual(self.states(), [("", "up"), ("up", "removed")])
        self.assertEqual(self.changes.recent[0].reason, "added (registered)")

    def test_bounded(self) -> None:
        """Only the latest changes are kept; all are counted and notified."""
        notified: list[StateChange] = []
        self.changes.on_change = notified.append
        for number in range(MAX_CHANGES + 50):
            state = AdminState.READY if number % 2 else AdminState.DRAIN
            self.server_set.set_admin_state(self.server, state, float(number))
        self.assertEqual(len(self.changes.recent), MAX_CHANGES)
        self.assertEqual(self.changes.total, MAX_CHANGES + 50)
        self.assertEqual(len(notified), MAX_CHANGES + 50)
