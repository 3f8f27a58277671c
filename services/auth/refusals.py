"""Records what administrators tried and were refused: it may be somebody with a stolen key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.auth.actions import Action
from services.auth.auditing import by
from services.auth.store import Store
from services.runtime.audit import AuditEvent
from services.runtime.errors import AppError, Reason
from services.runtime.identity import Identity


@asynccontextmanager
async def refusals_recorded(
    store: Store, caller: Identity, action: Action, target: str = ""
) -> AsyncIterator[None]:
    """Record a PERMISSION_DENIED of the block, in a transaction of its own, and let it go on."""
    try:
        yield
    except AppError as error:
        if error.reason is Reason.PERMISSION_DENIED:
            event = AuditEvent(by(caller).actor, action, target, "refused")
            async with store.tenant(caller.tenant_id) as tx:
                tx.audit(event)
        raise
