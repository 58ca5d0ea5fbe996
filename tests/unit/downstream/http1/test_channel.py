"""The HTTP/1.1 channel by itself."""

from __future__ import annotations

from balancebeam.downstream.http1 import channel_state
from balancebeam.downstream.http1.channel_state import ChannelState
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK


class ChannelStateTests(BalancerTestCase):
    """States of a channel, as a debugger shows them."""

    def test_repr_names_client_and_state(self) -> None:
        """The representation of a channel follows its state."""
        balancer = self.balancer()
        client = balancer.client("192.0.2.7")
        self.assertEqual(repr(client.protocol), "<Http1Channel 192.0.2.7 READING_HEAD>")
        client.send(GET)
        self.assertEqual(repr(client.protocol), "<Http1Channel 192.0.2.7 AWAITING_RESPONSE>")
        balancer.accept().send(OK)
        self.assertEqual(repr(client.protocol), "<Http1Channel 192.0.2.7 READING_HEAD>")
        client.half_close()
        self.assertEqual(repr(client.protocol), "<Http1Channel 192.0.2.7 CLOSING>")
        client.reset()
        self.assertEqual(repr(client.protocol), "<Http1Channel 192.0.2.7 CLOSED>")

    def test_aliases_are_the_states(self) -> None:
        """Each module-level alias is the state of its name, so that `is` compares them."""
        for state in ChannelState:
            self.assertIs(getattr(channel_state, state.name), state)

    def test_documentation_has_every_state(self) -> None:
        """The transition table names every state."""
        for state in ChannelState:
            self.assertIn(f"\n    {state.name} ", channel_state.__doc__ or "")
