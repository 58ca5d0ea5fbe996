"""Fixtures of the command line client's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the client's environment variables."""
    for name in ("BALANCEBEAM_ADMIN", "BALANCEBEAM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
