"""What may be done with a presented refresh token: pure rules, see docs/architecture.md, Data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

from services.auth.model import Family, RefreshToken

# A client that did not get the answer asks again within this time.
REPEAT_WINDOW = timedelta(seconds=60)
# Successors that one token can have: more repeats than any retry policy makes are an attack.
MAX_SUCCESSORS = 10


class Verdict(Enum):
    """What the rules say about a token."""

    ROTATE = auto()
    """First use: mark it used and give a successor."""
    REPEAT = auto()
    """The same request again: give a further successor."""
    REUSED = auto()
    """A used token by anyone else or too late: revoke the family."""
    REVOKED = auto()
    """Its family ended by logout or a new password."""
    EXPIRED = auto()
    """Too old."""


def judge(
    token: RefreshToken,
    family: Family,
    siblings: Sequence[RefreshToken],
    successors: Sequence[RefreshToken],
    request_id: str,
    now: datetime,
) -> Verdict:
    """Judge a token that is presented with `request_id` at `now`.

    `siblings` have the same parent as the token, `successors` have it as their parent. A repeated
    request leaves several successors, because either answer may have reached the client; the first
    one that is used is the true one, and the others are dead from then on.
    """
    if family.revoked_for == "reuse":
        return Verdict.REUSED
    if family.revoked_for is not None:
        return Verdict.REVOKED
    if token.used_at is not None:
        return _judge_again(token, token.used_at, successors, request_id, now)
    if any(sibling.used_at is not None for sibling in siblings if sibling != token):
        return Verdict.REUSED
    if now >= min(token.expires_at, family.expires_at):
        return Verdict.EXPIRED
    return Verdict.ROTATE


def _judge_again(
    token: RefreshToken,
    used_at: datetime,
    successors: Sequence[RefreshToken],
    request_id: str,
    now: datetime,
) -> Verdict:
    repeated = (
        request_id == token.used_request_id
        and now - used_at <= REPEAT_WINDOW
        and len(successors) < MAX_SUCCESSORS
        and all(successor.used_at is None for successor in successors)
    )
    return Verdict.REPEAT if repeated else Verdict.REUSED
