"""The actions in memory's audit log, by name; commands import this, so it imports nothing."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """Everything that memory records; docs/audit.md says when."""

    MEMORY_ERASE = "memory.erase"
    CONVERSATION_ERASE = "conversation.erase"
    AUDIT_READ = "audit.read"
    AUDIT_ARCHIVE = "audit.archive"
