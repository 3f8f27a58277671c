"""What memory puts into the audit log: what was erased, and by whom; never what it said."""

from __future__ import annotations

import hashlib
from uuid import UUID

from services.memory.actions import Action
from services.memory.model import Owner
from services.runtime.audit import AuditEvent


def memory_erased(owner: Owner, memory_id: UUID) -> AuditEvent:
    """Return the event of a memory that was forgotten."""
    return AuditEvent(f"user:{owner.user_id}", Action.MEMORY_ERASE, f"memory:{memory_id}")


def conversation_erased(owner: Owner, conversation_id: str, messages: int) -> AuditEvent:
    """Return the event of a deleted conversation; its id, which a client chose, only as a hash."""
    digest = hashlib.sha256(conversation_id.encode()).hexdigest()
    return AuditEvent(
        f"user:{owner.user_id}",
        Action.CONVERSATION_ERASE,
        f"conversation_sha256:{digest}",
        details={"messages": messages},
    )
