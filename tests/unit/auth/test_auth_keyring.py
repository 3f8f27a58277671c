"""The keyring of a replica whose first key another process makes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import cast

import pytest

from services.auth.auditing import By
from services.auth.credentials import SystemRandomness
from services.auth.keyring import Keyring, policy_from
from services.auth.model import SigningKey, User
from services.auth.store import Store
from services.runtime.audit import BOOTSTRAP, AuditEvent
from services.runtime.clock import FakeClock
from services.runtime.errors import AppError, Reason

ALICE = User("t1", "u1", "alice", None, frozenset({"user"}), datetime(2026, 1, 1, tzinfo=UTC))


class _Keys:
    """The part of a store that keyrings use."""

    def __init__(self) -> None:
        self.kept: list[SigningKey] = []

    async def signing_keys(self) -> list[SigningKey]:
        return list(self.kept)

    async def add_signing_key(
        self, key: SigningKey, retires_at: datetime | None, tenant_id: str, event: AuditEvent
    ) -> bool:
        self.kept.append(key)
        return True


async def test_the_first_key_is_used_as_soon_as_another_process_has_made_it() -> None:
    """A replica that was asked before there was any does not go on saying so."""
    store, clock = cast(Store, _Keys()), FakeClock()
    replica, bootstrap = (
        Keyring(store, b"w" * 32, policy_from(60, 600), clock, SystemRandomness()) for _ in range(2)
    )
    with pytest.raises(AppError) as early:
        await replica.sign(ALICE)
    assert early.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert json.loads(await replica.jwks())["keys"] == []

    await bootstrap.ensure_key(By("t1", BOOTSTRAP))

    token, _ = await replica.sign(ALICE)
    assert token
    assert len(json.loads(await replica.jwks())["keys"]) == 1
