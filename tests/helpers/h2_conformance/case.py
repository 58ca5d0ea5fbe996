"""A conformance case: what the client sends, and what the server must do."""

from __future__ import annotations

from typing import Callable, Protocol, Union

from attrs import evolve, frozen

from tests.helpers.h2_conformance.client import Client

# Returns what to send for the server's settings.
Sender = Callable[[dict[int, int]], bytes]


class Expectation(Protocol):
    """What the server must do before the case continues."""

    def verify(self, client: Client) -> None:
        """Read events until the expectation is met, or raise `ConformanceError`."""


Step = Union[bytes, Sender, Expectation]


@frozen
class Case:
    """
    One case.

    Attributes:
        title: what the client sends, and what the server must do.
        steps: bytes to send and expectations, in order.
        handshake: whether the exchange of the connection prefaces precedes the steps.
        identifier: h2spec's name of the section, and the number of the case in it.
        section: the RFC and section that decide.
    """

    title: str
    steps: tuple[Step, ...]
    handshake: bool = True
    identifier: str = ""
    section: str = ""

    def run(self, client: Client) -> None:
        """
        Run the case on a new connection.

        Raises:
            ConformanceError: the server did something else.
            NotApplicableError: the server's settings exclude the case.
        """
        if self.handshake:
            client.handshake()
        for step in self.steps:
            if isinstance(step, bytes):
                client.send(step)
            elif callable(step):
                client.send(step(client.settings))
            else:
                step.verify(client)


def case(title: str, *steps: Step, handshake: bool = True) -> Case:
    """Return a case that belongs to no section yet."""
    return Case(title, steps, handshake)


def section(name: str, rfc: str, *cases: Case) -> tuple[Case, ...]:
    """Return the cases of a section, numbered from 1."""
    return tuple(
        evolve(item, identifier=f"{name}/{number}", section=f"RFC {rfc}")
        for number, item in enumerate(cases, 1)
    )
