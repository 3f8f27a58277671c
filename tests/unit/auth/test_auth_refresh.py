"""The refresh rules: one line of tokens survives, whatever is repeated, late or stolen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.model import Family, RefreshToken
from services.auth.refresh import MAX_SUCCESSORS, Verdict, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=30)


def _family(revoked_for: str | None = None, expires_at: datetime = NOW + LIFE) -> Family:
    return Family("t", "f", "u", NOW, expires_at, revoked_for=revoked_for)


def _token(
    name: str, parent: str | None = None, used_s: float | None = None, request_id: str = "r"
) -> RefreshToken:
    return RefreshToken(
        tenant_id="t",
        sha256=name.encode(),
        family_id="f",
        parent=parent.encode() if parent else None,
        created_at=NOW,
        expires_at=NOW + LIFE,
        used_at=None if used_s is None else NOW - timedelta(seconds=used_s),
        used_request_id=None if used_s is None else request_id,
    )


def test_a_first_use_rotates() -> None:
    """An unused token of a live family is exchanged."""
    assert judge(_token("a"), _family(), [], [], "r", NOW) is Verdict.ROTATE


@pytest.mark.parametrize(
    ("used_s", "request_id", "expected"),
    [(0, "r", Verdict.REPEAT), (60, "r", Verdict.REPEAT), (60.1, "r", Verdict.REUSED),
     (1, "other", Verdict.REUSED)],
)  # fmt: skip
def test_a_second_use_is_a_repeat_only_with_its_id_and_in_time(
    used_s: float, request_id: str, expected: Verdict
) -> None:
    """Sixty seconds, the same request_id: anything else is reuse."""
    token = _token("a", used_s=used_s)

    assert judge(token, _family(), [], [_token("b", "a")], request_id, NOW) is expected


def test_a_used_successor_ends_repeats() -> None:
    """Once the client has gone on, the old token is dead even to its own request."""
    token, successor = _token("a", used_s=1), _token("b", "a", used_s=1)

    assert judge(token, _family(), [], [successor], "r", NOW) is Verdict.REUSED


def test_repeats_are_bounded() -> None:
    """More successors than a retry policy could ask for are an attack."""
    token = _token("a", used_s=1)
    successors = [_token(f"b{n}", "a") for n in range(MAX_SUCCESSORS)]

    assert judge(token, _family(), [], successors[:-1], "r", NOW) is Verdict.REPEAT
    assert judge(token, _family(), [], successors, "r", NOW) is Verdict.REUSED


def test_of_several_successors_only_the_first_used_lives() -> None:
    """The sibling of a used successor is reuse."""
    mine, used = _token("b", "a"), _token("c", "a", used_s=1)

    assert judge(mine, _family(), [mine, used], [], "r2", NOW) is Verdict.REUSED
    assert judge(mine, _family(), [mine, _token("c", "a")], [], "r2", NOW) is Verdict.ROTATE


@pytest.mark.parametrize(
    ("revoked_for", "expected"),
    [("reuse", Verdict.REUSED), ("logout", Verdict.REVOKED), ("password", Verdict.REVOKED),
     ("api_key", Verdict.REVOKED)],
)  # fmt: skip
def test_a_revoked_family_gives_nothing(revoked_for: str, expected: Verdict) -> None:
    """Whatever the token's own state."""
    for token in (_token("a"), _token("a", used_s=1)):
        assert judge(token, _family(revoked_for), [], [], "r", NOW) is expected


def test_a_token_or_a_family_that_has_expired_is_refused() -> None:
    """The earlier of both ends counts."""
    assert judge(_token("a"), _family(), [], [], "r", NOW + LIFE) is Verdict.EXPIRED
    assert judge(_token("a"), _family(expires_at=NOW), [], [], "r", NOW) is Verdict.EXPIRED


_STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["r1", "r2", "r3"]), st.integers(0, 40)),
    max_size=25,
)


@given(_STEPS)
def test_never_do_two_lines_of_one_family_live(steps: list[tuple[int, str, int]]) -> None:
    """However tokens are presented, at most one successor of any token is ever exchanged."""
    tokens = {b"0": _token("0")}
    family, now = _family(), NOW
    for choice, request_id, later_s in steps:
        now += timedelta(seconds=later_s)
        token = list(tokens.values())[choice % len(tokens)]
        siblings = [t for t in tokens.values() if t.parent == token.parent and t.parent]
        successors = [t for t in tokens.values() if t.parent == token.sha256]
        verdict = judge(token, family, siblings, successors, request_id, now)
        if verdict is Verdict.REUSED:
            family = _family("reuse")
        if verdict in (Verdict.ROTATE, Verdict.REPEAT):
            used_at, used_id = token.used_at or now, token.used_request_id or request_id
            tokens[token.sha256] = RefreshToken(
                "t", token.sha256, "f", token.parent, NOW, NOW + LIFE, used_at, used_id
            )
            made = _token(str(len(tokens)), token.sha256.decode())
            tokens[made.sha256] = made
        for parent in tokens:
            used = [t for t in tokens.values() if t.parent == parent and t.used_at]
            assert len(used) <= 1
