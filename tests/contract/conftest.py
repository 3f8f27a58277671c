"""Patience for tests on a busy machine."""

from __future__ import annotations

import pytest

from services.routing import pipeline
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def memory_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory knows of a turn is waited for before the first frame after `accepted`."""
    monkeypatch.setattr(pipeline, "PLACE_S", PATIENCE_S)
