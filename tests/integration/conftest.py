"""No test here is about how busy the machine is."""

from __future__ import annotations

import pytest

from services.runtime import postgres
from tests.support.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def patient_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a connection to Postgres does so for as long as the machine is busy."""
    monkeypatch.setattr(postgres, "ACQUIRE_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(postgres, "CONNECT_TIMEOUT_S", PATIENCE_S)
