"""What the audit log shows for which control: evidence for an auditor, who alone certifies. Pure.

The criteria are those of the AICPA's Trust Services Criteria (2017, points of focus revised 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from echomesh import AuditEntry
from services.auth.actions import Action as Auth
from services.memory.actions import Action as Memory

NOTICE = (
    "Evidence from the audit log of one tenant. It shows what was recorded; whether a control is"
    " designed well and works is for an auditor to judge, and nothing here certifies anything."
)
_SIGN_INS = (Auth.LOGIN, Auth.API_KEY_EXCHANGE, Auth.TOKEN_EXCHANGE, Auth.REFRESH)


@dataclass(frozen=True)
class Control:
    """A criterion, the control that answers to it here, and the actions that show it at work."""

    criterion: str
    title: str
    control: str
    actions: tuple[str, ...]
    refusals_only: bool = False


CONTROLS = (
    Control(
        "CC6.1",
        "Logical access is restricted to who is known",
        "Every call needs a token; tokens come from a password, a key or an application's own"
        " sign-in, are short-lived, and are signed with keys that are rotated.",
        (*_SIGN_INS, Auth.LOGOUT, Auth.SIGNING_KEY_PUBLISH),
    ),
    Control(
        "CC6.2",
        "Users are registered before they get credentials",
        "Tenants, users and keys are made by administrators and operators, end users by the"
        " application that signs them in.",
        (Auth.TENANT_CREATE, Auth.USER_CREATE, Auth.API_KEY_CREATE, Auth.SET_PASSWORD),
    ),
    Control(
        "CC6.3",
        "Access is changed and removed as roles change",
        "Roles are replaced as a whole; a revoked key or a new password ends all its sessions.",
        (Auth.SET_ROLES, Auth.API_KEY_REVOKE, Auth.SET_PASSWORD, Auth.LOGOUT),
    ),
    Control(
        "CC6.6",
        "Access from outside is guarded",
        "Refused sign-ins are recorded; repeated ones wait, and a stolen refresh token that is"
        " used again ends its session.",
        _SIGN_INS,
        refusals_only=True,
    ),
    Control(
        "CC7.2",
        "Anomalies are watched for",
        "Refusals and every reading of this log are recorded, with the trace of the call, and so is"
        " the archiving of its old entries.",
        (*_SIGN_INS, Auth.AUDIT_READ, Auth.AUDIT_ARCHIVE),
    ),
    Control(
        "CC6.5 / C1.2",
        "Data is disposed of when it is to be",
        "Memories and conversations are erased for good on request, in one transaction with the"
        " entry that says so.",
        (Memory.MEMORY_ERASE, Memory.CONVERSATION_ERASE),
    ),
    Control(
        "P4.3",
        "Personal information is securely disposed of",
        "As above; the entry holds ids and numbers, and none of what was erased.",
        (Memory.MEMORY_ERASE, Memory.CONVERSATION_ERASE),
    ),
)


@dataclass
class Seen:
    """How often something was recorded, and when first and last."""

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def take(self, time: datetime) -> None:
        """Count an entry of a time."""
        self.count += 1
        self.first = self.first or time
        self.last = time

    def as_json(self) -> dict[str, Any]:
        """The numbers as an object for JSON."""
        return {"entries": self.count, "first": _time(self.first), "last": _time(self.last)}


@dataclass
class Evidence:
    """The entries counted: all of an action, and its refusals apart."""

    actions: dict[str, Seen] = field(default_factory=dict)
    refusals: dict[str, Seen] = field(default_factory=dict)
    actors: set[str] = field(default_factory=set)
    tenant_id: str = ""

    def take(self, entry: AuditEntry) -> None:
        """Count an entry."""
        self.tenant_id = entry.tenant_id
        self.actors.add(entry.actor)
        self.actions.setdefault(entry.action, Seen()).take(entry.time)
        if entry.outcome == "refused":
            self.refusals.setdefault(entry.action, Seen()).take(entry.time)

    def of(self, control: Control) -> Iterator[tuple[str, Seen]]:
        """What a control shows, by action."""
        counted = self.refusals if control.refusals_only else self.actions
        for action in control.actions:
            yield action, counted.get(action, Seen())

    def as_json(self) -> dict[str, Any]:
        """The evidence as an object for JSON."""
        controls = [
            {
                "criterion": control.criterion,
                "title": control.title,
                "control": control.control,
                "refusals_only": control.refusals_only,
                "evidence": {action: seen.as_json() for action, seen in self.of(control)},
            }
            for control in CONTROLS
        ]
        return {"notice": NOTICE, "tenant_id": self.tenant_id, "controls": controls}


def lines_of(evidence: Evidence, integrity: Iterable[str]) -> Iterator[str]:
    """The report in Markdown; `integrity` says whether the log is whole."""
    yield f"# Audit report of tenant {evidence.tenant_id}\n\n{NOTICE}\n"
    yield "## Integrity of the log\n"
    for line in integrity:
        yield f"    {line}"
    yield f"\n{len(evidence.actors)} actors are named in it."
    for control in CONTROLS:
        yield f"\n## {control.criterion}: {control.title}\n\n{control.control}\n"
        yield "| action | entries | first | last |\n|---|---|---|---|"
        for action, seen in evidence.of(control):
            shown = f"{action}, refused" if control.refusals_only else action
            yield f"| {shown} | {seen.count} | {_time(seen.first)} | {_time(seen.last)} |"


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else ""
