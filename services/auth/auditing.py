"""What auth puts into the audit log: events as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.auth.actions import Action
from services.runtime.audit import AuditEvent, Detail, user_actor
from services.runtime.identity import Identity

UNKNOWN = "unknown"
"""The actor of a refused sign-in of nobody we know: what was typed may be a password."""


@dataclass(frozen=True)
class By:
    """Who makes a change, and the tenant whose log it belongs to."""

    tenant_id: str
    actor: str

    def did(self, action: Action, target: str, **details: Detail) -> AuditEvent:
        """Return the event of one thing done."""
        return AuditEvent(self.actor, action, target, details=details)


def by(identity: Identity) -> By:
    """The signed-in user as the one who makes a change."""
    return By(identity.tenant_id, user_actor(identity))


def signed_in(user_id: str, action: Action, **details: Detail) -> AuditEvent:
    """Return the event of a session that begins or goes on."""
    return AuditEvent(f"user:{user_id}", action, "", "ok", details)


def refused(user_id: str | None, action: Action, details: Mapping[str, Detail]) -> AuditEvent:
    """Return the event of a sign-in that was refused; `user_id` None: nobody we know."""
    return AuditEvent(f"user:{user_id}" if user_id else UNKNOWN, action, "", "refused", details)
