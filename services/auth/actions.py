"""The actions in auth's audit log, by name; commands import this, so it imports nothing."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """Everything that auth records; docs/audit.md says when."""

    TENANT_CREATE = "tenant.create"
    USER_CREATE = "user.create"
    SET_ROLES = "user.set_roles"
    SET_PASSWORD = "user.set_password"  # noqa: S105 - an action's name
    API_KEY_CREATE = "api_key.create"
    API_KEY_REVOKE = "api_key.revoke"
    SIGNING_KEY_PUBLISH = "signing_key.publish"
    LOGIN = "session.login"
    API_KEY_EXCHANGE = "session.api_key"
    TOKEN_EXCHANGE = "session.exchange"  # noqa: S105 - an action's name
    REFRESH = "session.refresh"
    LOGOUT = "session.logout"
    AUDIT_READ = "audit.read"
    AUDIT_ARCHIVE = "audit.archive"
