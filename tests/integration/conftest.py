"""No test here is about how busy the machine is."""

from __future__ import annotations

import pytest

from services.runtime import deadline, postgres
from tests.support.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls without a deadline of their own, and waits for Postgres, last for as long as needed."""
    monkeypatch.setattr(deadline, "DEFAULT_S", PATIENCE_S)
    monkeypatch.setattr(postgres, "ACQUIRE_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(postgres, "CONNECT_TIMEOUT_S", PATIENCE_S)
    defaults = postgres.Database.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "command_timeout_s", PATIENCE_S)
