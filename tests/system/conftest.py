"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.processes import ScriptedServer, respond_with


@pytest.fixture
def server_one() -> Iterator[ScriptedServer]:
    """A server that answers every request with the body "one"."""
    with ScriptedServer(respond_with("one")) as server:
        yield server


@pytest.fixture
def server_two() -> Iterator[ScriptedServer]:
    """A server that answers every request with the body "two"."""
    with ScriptedServer(respond_with("two")) as server:
        yield server
